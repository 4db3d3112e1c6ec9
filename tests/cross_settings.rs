//! The settings for cross stand twice, because the tool doesn't read a file called cross.toml: they must agree.
#![allow(clippy::unwrap_used)]

use toml::{Table, Value};

fn read(name: &str) -> Table {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn below<'a>(table: &'a Table, keys: &[&str]) -> &'a Value {
    let mut at = table.get(keys[0]).unwrap();
    for key in &keys[1..] {
        at = at.get(key).unwrap();
    }
    at
}

#[test]
fn the_tool_finds_in_cargo_toml_what_cross_toml_says() {
    let ours = read("cross.toml");
    assert!(!ours.is_empty());
    assert_eq!(below(&read("Cargo.toml"), &["package", "metadata", "cross"]), &Value::Table(ours));
}

#[test]
fn libopus_is_the_one_inside_the_crate_and_has_neon_on_32_bit_arm() {
    let ours = read("cross.toml");
    let common = below(&ours, &["build", "env", "passthrough"]).as_array().unwrap();
    assert!(common.contains(&Value::from("OPUS_NO_PKG=1")), "{common:?}");
    let armv7 = below(&ours, &["target", "armv7-unknown-linux-musleabihf", "env", "passthrough"]);
    let flags = armv7.as_array().unwrap()[0].as_str().unwrap();
    assert!(flags.starts_with("CFLAGS_armv7_unknown_linux_musleabihf=-mfpu=neon "), "{flags}");
    assert!(flags.contains(" -DOPUS_ARM_PRESUME_NEON_INTR"), "{flags}");
}

#[test]
fn the_demo_can_be_left_out() {
    let cargo = read("Cargo.toml");
    let features = below(&cargo, &["features"]);
    assert_eq!(features.get("default").unwrap(), &Value::from(vec!["demo"]));
    assert!(features.get("demo").is_some());
}
