//! Containers in zones: what runs is what was asked for, and its end is told truly.

use crate::support::played;
use reddwarf_host::spec::{EnvVar, Sensitive, UserSpec};
use reddwarf_host::{ContainerState, Sandboxes};

/// U1: image, command, arguments, environment, user and directory are what the program sees, whatever is in them.
#[test]
fn u1_the_program_is_started_as_asked_for_and_its_end_is_known() {
    played(|world| async move {
        let sandbox = world.running().await;
        let hostile = "it's \"quoted\"; $(id) `id`\n-n \\ \u{e4} *";
        let script = "printf '%s|%s|%s|%s' \"$1\" \"$V\" \"$(id -u):$(id -g)\" \"$PWD\"; kill -SEGV $$";
        let mut spec = world.shell(&sandbox, "app", script);
        spec.argv.extend(["sh".to_owned(), hostile.to_owned()]);
        spec.env = vec![EnvVar { name: "V".into(), value: Sensitive::new(hostile.into()) }];
        spec.user = UserSpec::Ids { uid: 60001, gid: 60001, groups: vec![] };
        spec.working_dir = "/tmp".into();
        let _ = world.host.container_start(&sandbox.id, &spec).await.unwrap();
        let ended = world.until_exit(&sandbox.id, &spec.name).await;
        let ContainerState::Exited { code, signal, message, .. } = ended.state else { panic!("{:?}", ended.state) };
        assert_eq!((code, signal, message.as_str()), (139, Some(11), ""), "zlogin itself says 0");
        let log = std::fs::read_to_string(&spec.log.path).unwrap();
        let texts: Vec<&str> = log.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap()).collect();
        assert_eq!(texts.join("\n"), format!("{hostile}|{hostile}|60001:60001|/tmp"));
        // Secrets are in no arguments of any tool.
        let transcript = world.lab.transcript().unwrap();
        assert!(transcript.iter().all(|line| line.argv.iter().all(|arg| !arg.contains("quoted"))));
        let missing = world.container(&sandbox, "missing", vec!["/no/such/program".into()]);
        let _ = world.host.container_start(&sandbox.id, &missing).await.unwrap();
        let ended = world.until_exit(&sandbox.id, &missing.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 127, started: None, .. }), "{:?}", ended.state);
    });
}
