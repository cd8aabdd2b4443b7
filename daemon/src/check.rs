//! `--check`: what the files that settings name say of themselves, with nothing started, made or changed.

use crate::host;
use reddwarf_api::{CertificateError, check_authorities, check_pair};
use reddwarf_config::{Diagnostic, Settings};
use reddwarf_host::{Clock, SystemClock};
use std::path::Path;

/// What is wrong with the files that settings name, each at the place of its setting.
pub(crate) fn files(settings: &Settings) -> Vec<Diagnostic> {
    let mut check = Check { settings, findings: Vec::new() };
    check.certificates();
    check.zar_keys();
    if settings.is_given("resolv_conf") {
        check.readable("resolv_conf", &settings.resolv_conf);
    }
    if let Some(auth) = settings.registry_auth.as_deref().filter(|auth| auth.exists()) {
        check.readable("registry_auth", auth);
    }
    check.findings
}

struct Check<'s> {
    settings: &'s Settings,
    findings: Vec<Diagnostic>,
}

impl Check<'_> {
    fn certificates(&mut self) {
        let settings = self.settings;
        let now = SystemClock.wall();
        match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), key) => {
                let key = key.as_deref();
                let found = check_pair(certificate, key, now);
                let about_key = matches!(&found, Err(error) if Some(error.path()) == key.map(Some));
                self.found(if about_key { "tls_key" } else { "tls_cert" }, found);
            }
            (None, Some(_)) => {
                let what = "`tls_key` is given without `tls_cert`";
                self.error("tls_key", what, "a key serves nothing without its certificate", "give `tls_cert`, too");
            }
            (None, None) => {}
        }
        let authorities = settings.client_ca.iter().map(|path| ("client_ca", path));
        for (key, path) in authorities.chain(settings.registry_ca.iter().map(|path| ("registry_ca", path))) {
            self.found(key, check_authorities(path, now));
        }
    }

    /// What a look at certificates brought.
    fn found(&mut self, key: &'static str, found: Result<Vec<String>, CertificateError>) {
        match found {
            Ok(warnings) => {
                let (why, help) = ("who checks certificates will refuse it", "have a new one issued");
                let warning =
                    |what: &String| self.settings.file_finding(key, false, format!("`{key}`: {what}"), why, help);
                self.findings.extend(warnings.iter().map(warning));
            }
            Err(error) => self.unusable(key, &error),
        }
    }

    fn zar_keys(&mut self) {
        if let Err(error) = host::zar_keys(&self.settings.zar_keys) {
            self.unusable("zar_keys", &error.chain());
        }
    }

    fn readable(&mut self, key: &'static str, path: &Path) {
        if let Err(error) = std::fs::read(path) {
            self.unusable(key, &format!("can't read {}: {error}", path.display()));
        }
    }

    fn unusable(&mut self, key: &'static str, problem: &dyn std::fmt::Display) {
        let why = "the daemon would not start with it, or not do what the setting is for";
        self.error(key, &format!("`{key}`: {problem}"), why, "mend the file, or name another one");
    }

    fn error(&mut self, key: &'static str, what: &str, why: &str, help: &str) {
        self.findings.push(self.settings.file_finding(key, true, what.to_owned(), why, help));
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test files")]
mod tests {
    use super::*;
    use reddwarf_config::Source;
    use reddwarf_config::settings::{Cli, HostFacts, HostKind};
    use std::sync::Arc;

    #[test]
    fn files_that_settings_name_are_looked_into_and_told_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "node_name = \"a\"\ntls_key = \"/nope/key\"\nclient_ca = \"{0}/ca\"\nzar_keys = [\"{0}/ca\"]\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("ca"), "# nothing\n").unwrap();
        let source = Arc::new(Source { name: "reddwarfd.toml".into(), text: text.into() });
        let facts = HostFacts { host_name: "a".into(), host: HostKind::Sim };
        let check = |environment: &[(&str, &str)]| -> Vec<String> {
            let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
            let (settings, _) = Settings::resolve(&Cli::default(), environment, Some(&source), &facts).unwrap();
            files(&settings).iter().map(Diagnostic::one_line).collect()
        };
        let found = check(&[]);
        let wanted = [
            "reddwarfd.toml:2:11: `tls_key` is given without `tls_cert`",
            "reddwarfd.toml:3:13: `client_ca`: ",
            "reddwarfd.toml:4:12: `zar_keys`: ",
        ];
        assert!(found.len() == 3 && found.iter().zip(wanted).all(|(f, w)| f.starts_with(w)), "{found:#?}");
        let given = [("REDDWARF_TLS_CERT", "/nope/certificate"), ("REDDWARF_RESOLV_CONF", "/nope/resolv.conf")];
        let found = check(&given);
        assert!(
            found[0].starts_with("REDDWARF_TLS_CERT: `tls_cert`: can't open /nope/certificate: No such"),
            "{found:#?}"
        );
        assert!(
            found[3].starts_with("REDDWARF_RESOLV_CONF: `resolv_conf`: can't read /nope/resolv.conf"),
            "{found:#?}"
        );
    }
}
