//! What people and programs see: text for terminals, JSON for everything else.
//!
//! Views take the model's results and write; they decide nothing. [`json`] holds the shapes that others rely on,
//! [`number`] how numbers read, [`table`] how columns line up; the others are one per answer.

pub mod doctor;
pub mod events;
#[cfg(test)]
mod golden;
pub mod graph;
pub mod histogram;
pub mod json;
pub mod locks;
pub mod number;
pub mod orphans;
pub mod states;
pub mod table;
pub mod tree;
pub mod waiting;
pub mod zombies;
