//! The `procprobe` binary.
fn main() {
    println!("procprobe");
}
