//! One program under the names of illumos' tools; see the library.

fn main() {
    std::process::exit(reddwarf_hostsim::call::main());
}
