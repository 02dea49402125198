//! What the pages below docs/ show in Rust stands in a program that compiles and that the end-to-end tests run.

use std::path::Path;

/// The Rust blocks of a page, each as its lines without indentation and empty ones.
fn blocks(page: &str) -> Vec<Vec<String>> {
    let fenced = page.split("```rust\n").skip(1);
    fenced.map(|rest| lines(rest.split("```").next().expect("a block ends"))).collect()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_rust_line_of_the_pages_is_in_an_example_in_the_same_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let pages = [
        ("../docs/first-application.md", "examples/first_application.rs"),
        ("../docs/events.md", "examples/events.rs"),
    ];
    for (page, example) in pages {
        let (blocks, example_lines) = (blocks(&read(page)), lines(&read(example)));
        assert!(!blocks.is_empty(), "{page} shows no Rust");
        for block in blocks {
            let mut rest = example_lines.iter();
            for line in block {
                assert!(
                    rest.any(|known| *known == line),
                    "{page}: {example} lacks, or has elsewhere: {line}"
                );
            }
        }
    }
}
