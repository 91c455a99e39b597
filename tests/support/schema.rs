//! Validates JSON against the published schemas, `docs/schemas/*.schema.json`.

use super::{gilprof_command, repository};
use jsonschema::{Registry, Validator};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

fn load(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `report` for report.schema.json, and so on.
pub fn schemas() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(repository().join("docs/schemas")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().replace(".schema.json", ""), load(&path))).collect()
}

/// The validator of one schema.
pub fn validator(name: &str) -> Validator {
    let mut registry = Registry::new();
    for (name, schema) in schemas() {
        // Files refer to each other by relative names; the default base is json-schema:///.
        registry = registry.add(format!("json-schema:///{name}.schema.json"), schema).unwrap();
    }
    let registry = registry.prepare().unwrap();
    jsonschema::options().with_registry(&registry).build(&schemas()[name]).unwrap()
}

/// The parsed text. Panics with every fault and its place.
pub fn assert_valid(name: &str, text: &[u8]) -> Value {
    let value: Value = serde_json::from_slice(text).unwrap_or_else(|e| panic!("{name}: {e}: {}", String::from_utf8_lossy(text)));
    let faults: Vec<String> = validator(name).iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(faults.is_empty(), "{name}: {faults:#?}");
    let mut unknown = Vec::new();
    let all = schemas();
    undescribed(&all, name, &all[name], &value, name, &mut unknown);
    assert!(unknown.is_empty(), "keys without a description in docs/schemas: {unknown:#?}");
    value
}

/// Keys of the output that the schema does not list. Extra keys are allowed to other versions of
/// gilprof, not to this one.
fn undescribed(all: &BTreeMap<String, Value>, file: &str, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return match target.strip_prefix('#') {
            Some(pointer) => undescribed(all, file, all[file].pointer(pointer).unwrap(), value, at, out),
            None => {
                let (file, pointer) = target.split_once('#').unwrap_or((target, ""));
                let file = file.replace(".schema.json", "");
                undescribed(all, &file, all[&file].pointer(pointer).unwrap(), value, at, out)
            }
        };
    }
    if let Some(choice) = schema["anyOf"].as_array().and_then(|choices| choices.first()).filter(|_| !value.is_null()) {
        return undescribed(all, file, choice, value, at, out);
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let place = format!("{at}.{key}");
                match schema["properties"].get(key).or(schema.get("additionalProperties")) {
                    Some(schema) => undescribed(all, file, schema, value, &place, out),
                    None => out.push(place),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| undescribed(all, file, &schema["items"], item, at, out)),
        _ => {}
    }
}

/// What gilprof prints; it must end with one of these exit codes.
pub fn stdout(args: &[&str], codes: &[i32]) -> Vec<u8> {
    let out = gilprof_command(args).output().unwrap();
    assert!(codes.contains(&out.status.code().unwrap()), "{args:?}: {:?} {}", out.status, String::from_utf8_lossy(&out.stderr));
    out.stdout
}
