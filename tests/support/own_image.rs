//! kiln's own images, from the project's Dockerfile: all of it but the compilation, for which the kiln under
//! test stands.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::kiln::Kiln;
use super::program::{Outcome, run};
use super::{Registry, base};

/// What a manifest says of a container.
pub(crate) struct Pod<'a> {
    pub(crate) volumes: &'a [(PathBuf, String)],
    pub(crate) variables: &'a [(&'a str, &'a str)],
    pub(crate) directory: &'a str,
    pub(crate) arguments: &'a [String],
}

/// The images: as OCI layouts for readers, as trees for runtimes, as archives for Docker.
pub(crate) struct OwnImage {
    place: PathBuf,
}

impl OwnImage {
    /// Those of this test process. Needs `Debian`.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<OwnImage> = OnceLock::new();
        SHARED.get_or_init(Self::build)
    }

    fn build() -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("own-image-{}", std::process::id()));
        let binary = place.join("binary");
        std::fs::create_dir_all(binary.join("out")).unwrap();
        // Without its symbols: what takes a test's time is moving them around.
        let stripped = binary.join("out/kiln");
        run(Command::new("strip").arg("-o").arg(&stripped).arg(Kiln::program())).ok();
        let kiln = Kiln::new();
        for target in ["kiln", "debug"] {
            let output = |kind: &str, name: &str| {
                let place = place.join(format!("{target}{name}"));
                format!("--output=type={kind},dest={}", place.display())
            };
            let mut command = kiln.build_command(Path::new(env!("CARGO_MANIFEST_DIR")), &[]);
            command.arg(format!("--build-context=binary={}", binary.display()));
            command.arg(format!("--build-arg=DEBIAN_IMAGE={}", base::debian()));
            command.args(["--target", target, "--tag", &format!("kiln-own:{target}")]);
            command.arg(output("oci", ".layout") + ",tar=false");
            command.arg(output("local", ".tree")).arg(output("docker", ".tar"));
            run(&mut command).ok();
        }
        Self { place }
    }

    /// The OCI layout of a target, `kiln` or `debug`.
    pub(crate) fn layout(&self, target: &str) -> PathBuf {
        self.place.join(format!("{target}.layout"))
    }

    /// The archive of a target that `docker load` reads, as `kiln-own:TARGET`.
    pub(crate) fn archive(&self, target: &str) -> PathBuf {
        self.place.join(format!("{target}.tar"))
    }

    /// Runs the image without a shell as a cluster does, in a container of a kind: its own entrypoint and variables,
    /// and what a manifest says.
    pub(crate) fn pod(&self, kind: &str, pod: &Pod<'_>) -> Outcome {
        let mut command = self.container(kind, "kiln", pod.variables);
        for (directory, place) in pod.volumes {
            command.arg("--volume").arg(format!("{}:{place}", directory.display()));
        }
        command.args(["--cwd", pod.directory, "--", "/kiln/kiln"]);
        run(command.args(pod.arguments))
    }

    /// A container of one of the images, which lacks its command.
    fn container(&self, kind: &str, target: &str, variables: &[(&str, &str)]) -> Command {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/as-kind");
        let mut command = Command::new(tool);
        command.arg(kind).arg(self.place.join(format!("{target}.tree")));
        let image = super::Image::read(&self.layout(target));
        for variable in image.settings()["Env"].as_array().unwrap() {
            command.args(["--env", variable.as_str().unwrap()]);
        }
        for (name, value) in variables {
            command.args(["--env", &format!("{name}={value}")]);
        }
        command
    }

    /// Runs a shell script in the debug image as a GitLab runner does, in a container of a kind: the image's own
    /// variables and those given, the project at `/builds/project`.
    pub(crate) fn job(
        &self,
        kind: &str,
        project: &Path,
        variables: &[(&str, &str)],
        script: &str,
    ) -> Outcome {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(project, std::fs::Permissions::from_mode(0o777)).unwrap();
        let fixed = [("CI_PROJECT_DIR", "/builds/project"), ("CI", "true")];
        let mut command = self.container(kind, "debug", &[&fixed, variables].concat());
        command.arg("--volume").arg(format!("{}:/builds/project", project.display()));
        let script = format!("set -eo pipefail\ncd \"$CI_PROJECT_DIR\"\n{script}");
        run(command.args(["--cwd", "/builds/project", "--", "/busybox/sh", "-c", &script]))
    }
}

/// A reference to busybox that a container with this machine's network can pull.
pub(crate) fn busybox() -> String {
    let _ = Registry::shared();
    base::busybox().to_owned()
}
