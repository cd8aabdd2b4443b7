//! Flags, made from the table of settings.

use super::table::{Form, SETTINGS};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Flags as given, not yet checked; flatten it into a clap parser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cli {
    /// `--config`: the settings file. Without it the default one is read if it is there.
    pub config: Option<PathBuf>,
    /// Values by key, as written.
    pub values: BTreeMap<&'static str, Vec<OsString>>,
}

impl Cli {
    /// The same with one more value: for tests and tools.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<OsString>) -> Self {
        self.values.entry(key).or_default().push(value.into());
        self
    }
}

impl clap::Args for Cli {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("Settings file [default: {}, if it is there]", super::DEFAULT_FILE));
        SETTINGS.iter().fold(command.arg(config), |command, setting| {
            let help = format!("{} [default: {}]", setting.help, setting.default);
            let arg = Arg::new(setting.key)
                .long(setting.flag)
                .help(help)
                .value_name(setting.value_name)
                .value_parser(clap::value_parser!(OsString));
            command.arg(match setting.form {
                Form::List | Form::Commas => arg.action(ArgAction::Append).help(format!(
                    "{}; may be repeated and replaces the default [default: {}]",
                    setting.help, setting.default
                )),
                Form::Boolean => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                _ => arg.action(ArgAction::Set),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Cli {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut cli = Self { config: matches.get_one::<PathBuf>("config").cloned(), values: BTreeMap::new() };
        for setting in SETTINGS {
            if let Some(values) = matches.get_many::<OsString>(setting.key) {
                cli.values.insert(setting.key, values.cloned().collect());
            }
        }
        Ok(cli)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let new = Self::from_arg_matches(matches)?;
        self.config = new.config.or_else(|| self.config.take());
        self.values.extend(new.values);
        Ok(())
    }
}
