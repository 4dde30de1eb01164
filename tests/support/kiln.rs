//! The kiln under test, with a store of its own and nothing of the machine's environment.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::context::Context;
use super::image::Image;
use super::program::{self, Outcome, run};

/// A kiln with its own store; the store goes when this does.
pub(crate) struct Kiln {
    home: tempfile::TempDir,
}

impl Kiln {
    pub(crate) fn new() -> Self {
        // Not on /tmp by rule: this is the file system that the target directory is on, where overlays work.
        let home = tempfile::Builder::new().prefix("kiln-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { home }
    }

    /// The kiln program.
    pub(crate) fn program() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_kiln"))
    }

    /// kiln's `--root`.
    pub(crate) fn store(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// Something in the directory that kiln keeps for itself below its root.
    pub(crate) fn own(&self, name: &str) -> PathBuf {
        self.store().join("kiln").join(name)
    }

    /// A place for this kiln's outputs.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A kiln command line; `--root` comes after the subcommand's name (`index create` has two words).
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(Self::program());
        command.env_clear();
        for name in ["PATH", "LANG", "TMPDIR"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.home.path()).env("DOCKER_CONFIG", self.home.path());
        command.args(subcommand.split(' ')).arg("--root").arg(self.store());
        command
    }

    /// `kiln SUBCOMMAND --root STORE ARGUMENT...`, to its end.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        subcommand: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Outcome {
        run(self.command(subcommand).args(arguments))
    }

    /// `kiln build` of a context with plain progress, to its end.
    #[track_caller]
    pub(crate) fn build(&self, context: &Context, arguments: &[&str]) -> Outcome {
        run(&mut self.build_command(context.path(), arguments))
    }

    pub(crate) fn build_command(&self, context: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command("build");
        command.arg("--progress=plain").args(arguments).arg(context);
        command
    }

    /// Starts a build and leaves it running.
    pub(crate) fn start(&self, context: &Context, arguments: &[&str]) -> Child {
        let mut command = self.build_command(context.path(), arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Builds a context and reads the image. The build must succeed.
    #[track_caller]
    pub(crate) fn image(&self, context: &Context) -> Image {
        self.image_with(context, &[])
    }

    #[track_caller]
    pub(crate) fn image_with(&self, context: &Context, arguments: &[&str]) -> Image {
        let directory = tempfile::tempdir_in(self.home.path()).unwrap();
        let layout = directory.path().join("layout");
        let output = format!("--output=type=oci,dest={},tar=false", layout.display());
        let arguments: Vec<&str> = arguments.iter().copied().chain([output.as_str()]).collect();
        let built = self.build(context, &arguments).ok();
        let image = Image::read(&layout);
        assert_eq!(built.last_line(), image.digest, "the digest on stdout\n{built}");
        image
    }

    /// Waits for a build that `start` began.
    #[track_caller]
    pub(crate) fn finish(child: Child) -> Outcome {
        program::finish(child, "kiln build (started)".to_owned())
    }
}
