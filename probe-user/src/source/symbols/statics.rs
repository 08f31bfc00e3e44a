//! Which variable an address is in, by the symbol table of its file, which the namer reads. What lies on the
//! heap or a stack has no name.

use super::super::reader::elsewhere;
use super::image::Image;
use crate::model::escape;
use crate::namer;
use crate::namer::protocol::{Answer, Question};

/// The variable, with the offset in it if the lock is only a part.
pub fn variable(image: &Image, address: u64) -> Option<String> {
    let module = image.module(address)?;
    let file = image.open(&module)?;
    let question = Question::Variable {
        base: module.start,
        address,
    };
    match elsewhere(|| namer::shared().ask(question, &[Some(file)])) {
        Some(Answer::Variable(name)) => name.map(|name| escape(name.as_bytes())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use super::*;

    static GUARDED_BY_NOBODY: Mutex<[u64; 4]> = Mutex::new([0; 4]);
    static A_NUMBER: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn statics_of_this_program_have_their_names() {
        let image = Image::read(Path::new("/proc"), std::process::id()).unwrap();
        // While compilers rename files, no file may be found at once.
        let variable = |address| (0..100).find_map(|_| variable(&image, address));
        let address = (&raw const GUARDED_BY_NOBODY).expose_provenance() as u64;
        let name = variable(address).unwrap();
        assert!(name.ends_with("GUARDED_BY_NOBODY"), "{name}");
        let inside = variable(address + 8).unwrap();
        assert!(inside.ends_with("GUARDED_BY_NOBODY+0x8"), "{inside}");
        let number = (&raw const A_NUMBER).expose_provenance() as u64;
        assert!(variable(number).unwrap().ends_with("A_NUMBER"));
        let on_stack = 0;
        let address = (&raw const on_stack).expose_provenance() as u64;
        assert_eq!(variable(address), None);
    }
}
