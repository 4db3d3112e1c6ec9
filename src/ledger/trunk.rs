//! The PBX's part in a call as a column, and back.

use rusqlite::types::Value as Column;
use serde_json::{Value, json};

use crate::call::record::TrunkPart;

/// The words for what sound is spoken in.
const CODECS: [&str; 4] = ["opus", "g722", "pcma", "pcmu"];

/// The column `trunk`.
pub(super) fn value(part: Option<&TrunkPart>) -> Column {
    let Some(TrunkPart { name, codec, encrypted, cause, early_media, diverted_from }) = part else {
        return Column::Null;
    };
    let text = json!({
        "name": name,
        "codec": codec,
        "encrypted": encrypted,
        "cause": cause,
        "early_media": early_media,
        "diverted_from": diverted_from,
    });
    Column::Text(text.to_string())
}

/// The part that this column holds; what can't be read in it is left out.
pub(super) fn part(text: Option<String>) -> Option<Box<TrunkPart>> {
    let read: Value = serde_json::from_str(&text?).ok()?;
    let codec = |word: &str| CODECS.into_iter().find(|known| *known == word);
    Some(Box::new(TrunkPart {
        name: read["name"].as_str()?.to_owned(),
        codec: read["codec"].as_str().and_then(codec),
        encrypted: read["encrypted"] == true,
        cause: read["cause"].as_u64().and_then(|cause| u16::try_from(cause).ok()),
        early_media: read["early_media"] == true,
        diverted_from: read["diverted_from"].as_str().map(str::to_owned),
    }))
}
