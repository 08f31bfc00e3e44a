//! The code that waits at a futex: whose it is says which protocol the futex word follows.
//!
//! A futex is a word and nothing else; what its value means is a convention of the library that waits. So the
//! site, the instruction behind the system call, is looked up once for each file and offset
//! (`source/sites.rs`) and decides how the word is read.

/// Whose code a thread waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Library {
    /// The GNU C library's own code, inlined or in functions of its own, not its exported `syscall()`.
    Glibc,
    /// The exported `syscall()` of a C library: Rust's standard library, libstdc++, `parking_lot`, `InnoDB`.
    Syscall,
    /// The musl C library.
    Musl,
    /// A static program without symbols that has musl in it: musl's code, or one that calls its `syscall()`.
    StrippedMusl,
    /// The run-time system of Go.
    Go,
    /// The C library's, at a futex inside `CPython`'s `_PyRuntime`.
    Python,
    /// Another file, or one without symbols: a static program that was stripped, code made while running.
    Other,
    /// The kernel's own code for 32-bit system calls (`__kernel_vsyscall` in the vDSO): whoever called it.
    Vdso,
    /// Not known: the file could not be read, or not in time.
    Unread,
}

/// Who called the exported `syscall()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The function as the symbol table spells it (mangled), if it is one of those that wait.
    pub function: Option<String>,
    /// Whether the file has symbols of its own: only then does a function without a name say something.
    pub has_symbols: bool,
}

/// One place in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Whose code it is.
    pub library: Library,
    /// The function, where a symbol covers the instruction.
    pub function: Option<String>,
    /// Who called it, if it is the exported `syscall()` and a thread that waits there was looked at; or which
    /// function waits at the program's semaphores.
    pub caller: Option<Caller>,
}

impl Site {
    /// A place of which nothing is known.
    pub const UNREAD: Self = Self {
        library: Library::Unread,
        function: None,
        caller: None,
    };

    /// Whether the function is one of these, or begins with one of them.
    pub fn is_in(&self, functions: &[&str]) -> bool {
        let name = self.function.as_deref().unwrap_or("");
        functions.iter().any(|function| name.starts_with(function))
    }

    /// Whether the site alone does not say whose protocol it is.
    pub const fn needs_caller(&self) -> bool {
        matches!(self.library, Library::Syscall | Library::Vdso)
    }

    /// The function that called it.
    pub fn calling_function(&self) -> Option<&str> {
        self.caller.as_ref()?.function.as_deref()
    }

    /// The same code, known to wait at something that belongs to `CPython`.
    #[must_use]
    pub fn inside_python(&self) -> Self {
        Self {
            library: Library::Python,
            ..self.clone()
        }
    }

    /// Whether it is known that no function of a known lock called it.
    pub fn has_other_caller(&self) -> bool {
        self.caller
            .as_ref()
            .is_some_and(|caller| caller.has_symbols && caller.function.is_none())
    }
}

/// A language run-time that schedules its own threads at its own locks, which the kernel does not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    /// A Java virtual machine (`HotSpot`).
    Java,
    /// Go.
    Go,
    /// Ruby.
    Ruby,
    /// Node.js.
    Node,
}

impl Runtime {
    /// How people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Java => "Java",
            Self::Go => "Go",
            Self::Ruby => "Ruby",
            Self::Node => "Node.js",
        }
    }

    /// The command that tells what its threads wait for.
    pub fn command(self, pid: u32) -> String {
        match self {
            Self::Java => format!("jstack {pid}"),
            Self::Go => format!("kill -QUIT {pid} (prints all goroutines and ends it)"),
            Self::Ruby => format!("rbspy dump --pid {pid}"),
            Self::Node => format!("node inspect -p {pid}"),
        }
    }
}
