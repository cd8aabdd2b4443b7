//! `reddwarfd`: arguments, wiring, signals, readiness.

mod cli;
mod logging;
mod service;
mod signals;
mod supervise;

fn main() {}
