//! What this host allows, for people and for programs.

use serde::Serialize;

use crate::kernel::preflight::{Item, Verdict};

/// Payload of `doctor`.
#[derive(Debug, Serialize)]
pub struct Doctor<'a> {
    schema: &'static str,
    items: Vec<ItemJson<'a>>,
}

#[derive(Debug, Serialize)]
struct ItemJson<'a> {
    name: &'static str,
    verdict: &'static str,
    found: &'a str,
    remedy: Option<&'a str>,
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Limited => "limited",
        Verdict::Failed => "failed",
    }
}

/// As JSON.
pub fn json(items: &[Item]) -> Doctor<'_> {
    Doctor {
        schema: super::json::SCHEMA,
        items: items.iter().map(item).collect(),
    }
}

fn item(item: &Item) -> ItemJson<'_> {
    ItemJson {
        name: item.name,
        verdict: word(item.verdict),
        found: &item.found,
        remedy: (!item.remedy.is_empty()).then_some(item.remedy.as_str()),
    }
}

/// As text: a line an item, the remedy under it.
pub fn lines(items: &[Item]) -> Vec<String> {
    let mut lines = Vec::new();
    for item in items {
        lines.push(format!(
            "{:<8} {:<24} {}",
            word(item.verdict),
            item.name,
            item.found
        ));
        if !item.remedy.is_empty() {
            lines.push(format!("{:<8} {:<24} → {}", "", "", item.remedy));
        }
    }
    lines
}
