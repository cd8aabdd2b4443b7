//! Generations of the manifest directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod common;

use common::{Place, key, options};
use reddwarf_store::{
    CommitError, DeclaredKey, Digest, FileChange, FileContent, NewFile, NewGeneration, StoreOptions, Transaction,
};

fn generation(files: &[(&str, &str)]) -> NewGeneration {
    let file = |(name, text): &(&str, &str)| NewFile {
        name: (*name).to_owned(),
        content: FileContent::Bytes(text.as_bytes().to_vec().into()),
    };
    let declared =
        |(name, _): &(&str, &str)| DeclaredKey { key: key(&format!("pod/{name}")), file: (*name).to_owned() };
    NewGeneration {
        files: files.iter().map(file).collect(),
        declared: files.iter().map(declared).collect(),
        diagnostics: serde_json::json!([]),
        ..NewGeneration::default()
    }
}

fn tx() -> Transaction {
    Transaction::new("directory", "rescan")
}

#[tokio::test]
async fn a_generation_is_recorded_with_its_objects() {
    let place = Place::new();
    let store = place.open();
    let first = tx().create(key("pod/web"), "1").generation(generation(&[("web.yaml", "web"), ("db.yaml", "db")]));
    let done = store.commit(first).await.unwrap();
    assert_eq!(done.generation, Some(1));
    let record = store.generation(1).unwrap().unwrap();
    assert_eq!(record.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["db.yaml", "web.yaml"]);
    assert_eq!((record.files[1].size, record.files[1].digest), (3, Digest::of(b"web")));
    assert_eq!(store.commits(done.revision..=done.revision, 1).unwrap()[0].generation, Some(1));

    // A refused transaction records no generation either.
    let refused = tx().create(key("pod/web"), "2").generation(generation(&[("x", "x")]));
    assert!(store.commit(refused).await.is_err());
    assert_eq!(store.latest_generation().unwrap().unwrap().number, 1);

    // The same directory again is nothing new, whatever the order of its files.
    let again = store.commit(tx().generation(generation(&[("db.yaml", "db"), ("web.yaml", "web")]))).await.unwrap();
    assert_eq!((again.changed, again.generation, again.revision), (false, None, done.revision));
}

#[tokio::test]
async fn generations_are_compared_file_by_file() {
    let place = Place::new();
    let store = place.open();
    store.commit(tx().generation(generation(&[("a", "1"), ("b", "1"), ("c", "1")]))).await.unwrap();
    store.commit(tx().generation(generation(&[("a", "1"), ("b", "2"), ("d", "1")]))).await.unwrap();
    let diff = store.generation_diff(1, 2).unwrap().unwrap();
    let brief: Vec<_> = diff.files.iter().map(|f| (f.name.as_str(), f.change.clone())).collect();
    let text = |s: &str| bytes::Bytes::copy_from_slice(s.as_bytes());
    assert_eq!(
        brief,
        [
            ("b", FileChange::Changed { before: text("1"), after: text("2") }),
            ("c", FileChange::Removed { before: text("1") }),
            ("d", FileChange::Added { after: text("1") }),
        ]
    );
    assert_eq!(store.generation_diff(1, 3).unwrap(), None);
}

#[tokio::test]
async fn contents_are_stored_once_and_go_with_their_last_generation() {
    let place = Place::new();
    let store = place.open_with(StoreOptions { generations: 3, ..options() });
    let has = |text: &str| store.has_content(&Digest::of(text.as_bytes())).unwrap();
    // "keep" is in 1, 2, 4 and 5; "once" in 1 only; "back" in 2 and, brought back without being sent, in 4.
    store.commit(tx().generation(generation(&[("a", "keep"), ("b", "once"), ("c", "once")]))).await.unwrap();
    store.commit(tx().generation(generation(&[("a", "keep"), ("b", "back")]))).await.unwrap();
    store.commit(tx().generation(generation(&[("b", "third")]))).await.unwrap();
    assert!(has("once") && has("back") && has("keep"));
    let mut fourth = generation(&[("a", "keep")]);
    fourth.files.push(NewFile { name: "b".into(), content: FileContent::Stored(Digest::of(b"back")) });
    fourth.rolled_back_from = Some(3);
    store.commit(tx().generation(fourth)).await.unwrap();
    assert!(!has("once"), "went with generation 1");
    store.commit(tx().generation(generation(&[("a", "keep")]))).await.unwrap();
    assert_eq!(store.generations().unwrap().iter().map(|g| g.number).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(has("back") && has("keep"), "4 still has it");
    for n in 6..9 {
        store.commit(tx().generation(generation(&[("a", "keep"), ("n", &n.to_string())]))).await.unwrap();
    }
    assert!(!has("back") && !has("third") && has("keep"));
    assert_eq!(store.content(&Digest::of(b"keep")).unwrap().as_deref(), Some(&b"keep"[..]));

    let missing = NewGeneration {
        files: vec![NewFile { name: "x".into(), content: FileContent::Stored(Digest::of(b"never")) }],
        ..NewGeneration::default()
    };
    assert!(matches!(store.commit(tx().generation(missing)).await, Err(CommitError::MissingContent { .. })));
    let twice = generation(&[("x", "1"), ("x", "2")]);
    let refused = store.commit(tx().generation(twice)).await.unwrap_err();
    assert_eq!(refused.to_string(), "invalid transaction: file x is in the generation twice");
}

/// F20: many files; the second generation sends only what is new.
#[tokio::test]
async fn a_large_directory_is_recorded_at_the_cost_of_what_changed() {
    const FILES: usize = 3000;
    let place = Place::new();
    let store = place.open();
    let texts: Vec<(String, String)> = (0..FILES).map(|n| (format!("{n:04}.yaml"), format!("content {n}"))).collect();
    let brief: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let first = generation(&brief);
    let mut objects = tx();
    for (name, text) in &texts {
        objects = objects.put(key(&format!("pod/{name}")), text.clone());
    }
    store.commit(objects.generation(first.clone())).await.unwrap();
    let mut second = first;
    for file in second.files.iter_mut().skip(1) {
        if let FileContent::Bytes(bytes) = &file.content {
            file.content = FileContent::Stored(Digest::of(bytes));
        }
    }
    second.files[0].content = FileContent::Bytes("edited".into());
    store.commit(tx().generation(second)).await.unwrap();
    let diff = store.generation_diff(1, 2).unwrap().unwrap();
    assert_eq!(diff.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["0000.yaml"]);
    assert_eq!(store.latest_generation().unwrap().unwrap().files.len(), FILES);
}
