//! Changes of maps' and sets' elements, told to the kernel directly: one transaction without a process, some 50 ms for
//! twenty thousand of them where nft(8) takes a second to read their text.

use super::model::ElementChange;
use super::words::{Element, Value};
use crate::nfnetlink::{NFTABLES, NLM_F_ACK, NLM_F_CREATE, Socket, Writer};
use std::io;

const NFPROTO_INET: u8 = 1;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// NFTA_LIST_ELEM.
const ONE: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
/// Elements of one message: an attribute has 64 KiB at most, and an element some 100 bytes.
const PER_MESSAGE: usize = 300;

/// Makes all changes or none; with a number only if the rule set still has that one (else `ERESTART`).
pub(super) fn apply(table: &str, changes: &[ElementChange<'_>], generation: Option<u32>) -> io::Result<()> {
    let batch = Writer::batch(generation, |w| {
        for (index, change) in changes.iter().enumerate() {
            write(w, table, change, index + 1 == changes.len());
        }
    });
    Socket::connect()?.transact(&batch)
}

fn write(w: &mut Writer, table: &str, change: &ElementChange<'_>, last: bool) {
    let (kind, flags) = if change.add { (NEW_ELEMENTS, NLM_F_CREATE) } else { (DELETE_ELEMENTS, 0) };
    let mut chunks = change.elements.chunks(PER_MESSAGE).peekable();
    while let Some(chunk) = chunks.next() {
        let ack = if last && chunks.peek().is_none() { NLM_F_ACK } else { 0 };
        w.message((NFTABLES << 8 | kind, flags | ack), (NFPROTO_INET, 0), |w| {
            w.text(LIST_TABLE, table);
            w.text(LIST_SET, change.name);
            w.nest(LIST_ELEMENTS, |w| chunk.iter().for_each(|one| element(w, one, change.add)));
        });
    }
}

fn element(w: &mut Writer, element: &Element, with_value: bool) {
    w.nest(ONE, |w| {
        w.nest(KEY, |w| w.attribute(VALUE, element.key.as_slice()));
        match &element.value {
            _ if !with_value => {}
            Value::Nothing => {}
            Value::Words(words) => w.nest(DATA, |w| w.attribute(VALUE, words.as_slice())),
            Value::Goto(chain) => verdict(w, GOTO, chain),
            Value::Jump(chain) => verdict(w, JUMP, chain),
        }
    });
}

fn verdict(w: &mut Writer, code: i32, chain: &str) {
    w.nest(DATA, |w| {
        w.nest(VERDICT, |w| {
            w.attribute(VERDICT_CODE, &code.to_be_bytes());
            w.text(VERDICT_CHAIN, chain);
        });
    });
}
