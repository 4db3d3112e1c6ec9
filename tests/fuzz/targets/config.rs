//! The config file, and changes to it by the API: a change leaves a file that loads, or is refused.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use watrunk::config::edit::{Edit, EditValue, apply};
use watrunk::config::{Board, Config, SecretSource};

/// Every file and every variable holds the same.
struct Same;

impl SecretSource for Same {
    fn file(&self, _: &Path) -> Result<String, String> {
        Ok("secret".to_owned())
    }

    fn variable(&self, _: &str) -> Option<String> {
        Some("secret".to_owned())
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Board::parse(text);
    let (config, _) = match Config::parse(text, &Same) {
        Ok(read) => read,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            return;
        }
    };
    let Some(number) = config.numbers.first() else { return };
    let set = vec![
        ("enabled", Some(EditValue::Flag(false))),
        ("national_prefix", Some(EditValue::Text("0".into()))),
        ("country_code", None),
    ];
    let edits = [Edit::Number { id: number.id.clone(), set }, Edit::RemoveWebhook { id: "w".into() }];
    for edit in edits {
        if let Ok(changed) = apply(text, &[edit]) {
            assert!(Config::parse(&changed, &Same).is_ok(), "a change broke it:\n{changed}");
        }
    }
});
