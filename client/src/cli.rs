//! The command line.

use crate::command::*;
use crate::exit::TABLE;
use crate::output::Output;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Talks to reddwarfd: shows, plans, applies and explains what runs on this host.
#[derive(Debug, Parser)]
#[command(
    name = "reddwarfctl",
    version,
    after_help = TABLE,
    args_override_self = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        env = "REDDWARF_SOCKET",
        value_name = "PATH",
        default_value = if cfg!(target_os = "illumos") { "/var/run/reddwarf/reddwarf.sock" } else { "/run/reddwarf/reddwarf.sock" }
    )]
    pub(crate) socket: PathBuf,
    /// Work in this namespace (default: `default`)
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// json, yaml, wide, name, jsonpath=TEMPLATE (validate: sarif)
    #[arg(short, long, global = true, value_name = "FORMAT", value_parser = Output::parse)]
    pub(crate) output: Option<Output>,
    /// Print no confirmations
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// No colours (also with NO_COLOR set, or when the output is no terminal)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// The verb
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One verb each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show daemon, manifest files and pods on one screen; exit 3 when something is not as asked
    Status(status::Arguments),
    /// Check manifests without a daemon; exit 1 when one is refused
    Validate(validate::Arguments),
    /// Show what would be done, and do nothing; exit 2 when there is something
    Plan(plan::Arguments),
    /// Show objects
    Get(get::Arguments),
    /// Show objects in words, with their events
    Describe(describe::Arguments),
    /// Create or change the objects of files through the API
    Apply(apply::Arguments),
    /// Delete objects that belong to the API
    Delete(delete::Arguments),
    /// Print what a container wrote
    Logs(logs::Arguments),
    /// Run a program in a container; exits with its code
    Exec(exec::Arguments),
    /// Join the streams of the program that a container runs
    Attach(attach::Arguments),
    /// Make local ports lead into a pod
    PortForward(port_forward::Arguments),
    /// Show what happened lately
    Events(events::Arguments),
    /// Tell why an object is as it is, from the line of its file to the last error
    Why(why::Arguments),
    /// Show what the node and its pods use just now
    Top(top::Arguments),
    /// Restart a pod's containers, once
    Restart(restart::Arguments),
    /// List the generations of the manifest directories, or show one
    Generations(generations::Arguments),
    /// Compare two generations; exit 2 when they differ
    Diff(diff::Arguments),
    /// Put an earlier generation in force again
    Rollback(rollback::Arguments),
    /// Import, list and remove images
    Image(image::Arguments),
    /// List volumes; make, list, remove and roll back to snapshots; clone, send and receive
    Volume(volume::Arguments),
    /// Print the admin's kubeconfig, for kubectl and other Kubernetes clients
    Kubeconfig(kubeconfig::Arguments),
    /// Make, list and revoke bearer tokens of the Kubernetes API
    Token(token::Arguments),
    /// Read the manifest directories again, now
    ///
    /// Settings are read again at SIGHUP only (`systemctl reload reddwarfd`).
    Reload(reload::Arguments),
    /// Compare everything with the host, now
    Reconcile(reconcile::Arguments),
    /// Stop the daemon; pods keep running unless --stop-pods is given
    Shutdown(shutdown::Arguments),
    /// Copy the daemon's database to a new file
    Backup(backup::Arguments),
    /// Put a backup in the place of the database
    Restore(restore::Arguments),
    /// Wait until objects are as asked, or gone
    Wait(wait::Arguments),
    /// Print the completion script of a shell
    Completion(completion::Arguments),
    /// Show the versions of client and daemon
    Version(version::Arguments),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(man::Arguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("reddwarfctl").chain(line.split(' ')))
    }

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_line_is_understood() {
        for line in [
            "--socket /x status",
            "status --watch",
            "status -o json",
            "validate --strict examples/manifests",
            "validate - -o sarif",
            "plan",
            "plan web.yaml --diff",
            "get pods -A -o json",
            "get pod web -o jsonpath={.status.podIP}",
            "get pods web db -n shop",
            "get pods -l app=web --field-selector status.phase=Running -w",
            "describe pod/web",
            "apply -f a.yaml -f b.yaml --dry-run --diff",
            "apply -f - --wait --timeout 20s",
            "delete pod web --grace-period 0 --wait=false",
            "delete -f a.yaml",
            "logs web -f --tail 10 --since 5m -p --timestamps -c main",
            "exec -it web -c main -- sh -c ls",
            "exec web -- cat -n /etc/hosts",
            "attach -it web -c main",
            "port-forward web 8080:80 :443 --address ::1",
            "events --for pod/web",
            "why pod/web",
            "top",
            "top node",
            "top pod web --containers -A --sort-by memory",
            "restart web -c main",
            "generations 3",
            "diff 1 2",
            "rollback 1 --write",
            "image import /tmp/root --name local/box:1",
            "image ls",
            "image rm local/box:1",
            "volume ls",
            "volume snapshot data monday -n shop",
            "volume snapshots data",
            "volume rollback data monday",
            "volume rm data monday",
            "volume clone data monday copy",
            "volume send data monday /backup/data.1 --since sunday",
            "volume receive restored monday /backup/data.1",
            "kubeconfig",
            "kubeconfig --path",
            "token create alice --group devs --group ops --expires 30d --kubeconfig",
            "token list",
            "token revoke abc",
            "token rotate-keys",
            "reload",
            "reconcile --allow-prune",
            "shutdown --stop-pods",
            "backup /tmp/b",
            "restore /tmp/b",
            "wait pod/web --for=condition=Ready --timeout=20s",
            "wait pod/web --for delete",
            "wait pod/web --for=jsonpath={.status.phase}=Running",
            "completion bash",
            "version --client",
            "man /tmp",
        ] {
            if let Err(e) = parse(line) {
                panic!("{line}: {e}");
            }
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            "stauts",
            "get",
            "get pods -o xml",
            "exec web",
            "wait pod/web --timeout soon",
            "diff 1",
            "get pods -o jsonpath={.a",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
