//! Cache mounts that follow from runner to runner through a registry.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::cache::{ran, requests};
use crate::support::need::{Busybox, Debian, Program};
use crate::support::server::http::{Body, Handler, Request, Response, Server};
use crate::support::{Context, Kiln, Registry, base, run};

#[test]
fn cache_mounts_follow_to_other_runners() {
    require!(Busybox);
    let registry = Registry::open();
    let place = registry.image("mounts");
    let (to, from) = (
        format!("--cache-mounts-to=type=registry,ref={place}"),
        format!("--cache-mounts-from=type=registry,ref={place}"),
    );
    let context = |text: &str| {
        Context::on_busybox(&format!(
            "RUN --mount=type=cache,id=pkg,target=/c,mode=0700 ls -ln /c && cat /c/log 2>/dev/null; {text}\n"
        ))
    };
    let (one, two) = (Kiln::new(), Kiln::new());
    let fill = "echo first >> /c/log; ln /c/log /c/link; mkdir /c/d; chown 7:8 /c/d";
    let built = one.build(&context(fill), &[&to]).ok();
    assert!(built.stderr.contains("cache mount pkg"), "{built}");
    // The other runner sees it, and adds to it.
    let built = two.build(&context("echo second >> /c/log"), &[&to, &from]).ok();
    assert!(built.stderr.contains(" first\n") && built.stderr.contains(&format!("from {place}")), "{built}");
    assert!(built.stderr.contains(" 7 "), "owners are kept: {built}");
    // Nothing changed: nothing is uploaded.
    let before = registry.log().lines().count();
    let built = two.build(&context("true"), &[&to, &from]).ok();
    let writes = requests(&registry, before)
        .into_iter()
        .filter(|(method, ..)| matches!(method.as_str(), "PUT" | "POST" | "PATCH"));
    assert_eq!(writes.count(), 0, "{built}");
    // A runner that has the mount keeps its own; one that has it not gets the newest.
    let built = one.build(&context("echo third"), &[&from]).ok();
    assert!(!built.stderr.contains(" second\n"), "{built}");
    let three = Kiln::new();
    let built = three.build(&context("echo fourth"), &[&from]).ok();
    assert!(built.stderr.contains(" second\n"), "{built}");
    // Above its bound it is not saved; the build is none the worse for it.
    let built =
        three.build(&context("head -c 100000 /dev/zero > /c/big"), &[&format!("{to},max-size=50k")]).ok();
    assert!(built.stderr.contains("`max-size` is 51200"), "{built}");
}

/// Saving and restoring cost nothing where there is nothing to do.
#[test]
fn mounts_of_cached_steps_are_not_fetched_and_the_same_content_is_sent_once() {
    require!(Busybox);
    let registry = Registry::open();
    let (mounts, cache) = (registry.image("mounts"), registry.image("cache"));
    let arguments = [
        format!("--cache-to={cache}"),
        format!("--cache-from={cache}"),
        format!("--cache-mounts-to=type=registry,ref={mounts}"),
        format!("--cache-mounts-from=type=registry,ref={mounts}"),
    ];
    let arguments = arguments.each_ref().map(String::as_str);
    // Two mounts with the same content, and one that is as it was.
    let fill = "head -c 50000 /dev/zero > /c/file && touch -d @5 /c/file /c";
    let context = Context::on_busybox(&format!(
        "RUN --mount=type=cache,id=one,target=/c {fill}\nRUN --mount=type=cache,id=two,target=/c {fill} && true\n"
    ));
    Kiln::new().build(&context, &arguments).ok();
    let uploads = |from: usize| {
        let sent = requests(&registry, from).into_iter();
        sent.filter(|(method, path, ..)| method == "PUT" && path.contains("/mounts/blobs/")).count()
    };
    assert_eq!(uploads(0), 3, "one layer, and what each record says");
    let before = registry.log().lines().count();
    let built = Kiln::new().build(&context, &arguments).ok();
    assert_eq!(ran(&built), [""; 0], "{built}");
    let asked: Vec<_> =
        requests(&registry, before).into_iter().filter(|(_, path, ..)| path.contains("/mounts/")).collect();
    assert!(asked.is_empty(), "{asked:#?}");
}

/// A damaged mount is begun anew, and one in another place will do.
#[test]
fn a_mount_that_cannot_be_restored_comes_from_the_next_place_or_begins_empty() {
    require!(Busybox);
    let registry = Registry::open();
    let names = ["first", "second"].map(|name| registry.image(name));
    let to = names.clone().map(|name| format!("--cache-mounts-to=type=registry,ref={name}"));
    let from = names.clone().map(|name| format!("--cache-mounts-from=type=registry,ref={name}"));
    let context =
        |text: &str| Context::on_busybox(&format!("RUN --mount=type=cache,id=m,target=/c {text}\n"));
    Kiln::new().build(&context("head -c 9999 /dev/urandom > /c/one"), &[&to[0]]).ok();
    Kiln::new().build(&context("head -c 9999 /dev/urandom > /c/two"), &[&to[1]]).ok();
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let manifest = run(Command::new("curl").args(["-sf", "-H", accept]).arg(format!(
        "http://{}/v2/first/manifests/{}",
        registry.address(),
        registry.tags("first").iter().find(|tag| tag.starts_with("key-")).unwrap()
    )))
    .ok();
    let manifest: serde_json::Value = serde_json::from_str(&manifest.stdout).unwrap();
    let file = registry.blob_file(manifest["layers"][0]["digest"].as_str().unwrap());
    let size = fs::metadata(&file).unwrap().len() as usize;
    fs::write(file, vec![b'x'; size]).unwrap();
    let built = Kiln::new().build(&context("ls /c && test -e /c/two"), &[&from[0], &from[1]]).ok();
    assert!(built.stderr.contains("could not be restored from"), "{built}");
    let built = Kiln::new().build(&context("test -z \"$(ls /c)\""), &[&from[0]]).ok();
    assert!(built.stderr.contains("could not be restored from"), "{built}");
}

/// An apt archive of one package, made here, which counts what is asked for.
struct Archive {
    files: std::collections::BTreeMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Handler for Archive {
    fn handle(&self, request: &Request, _: &mut Body<'_>) -> Option<Response> {
        self.asked.lock().unwrap().push(request.path.clone());
        // apt asks for `/./Packages`.
        Some(match self.files.get(&request.path.replace("/./", "/")) {
            Some(bytes) => Response::new(200).body(bytes.clone()),
            None => Response::new(404),
        })
    }
}

impl Archive {
    fn new(work: &Path) -> Arc<Self> {
        let package = work.join("package");
        fs::create_dir_all(package.join("DEBIAN")).unwrap();
        fs::create_dir_all(package.join("usr/share/hello")).unwrap();
        let control =
            "Package: kiln-hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n";
        fs::write(package.join("DEBIAN/control"), control).unwrap();
        fs::write(package.join("usr/share/hello/greeting"), "hello from the package\n").unwrap();
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build", "package", "hello.deb"])
            .current_dir(work))
        .ok();
        let deb = fs::read(work.join("hello.deb")).unwrap();
        let digest = run(Command::new("sha256sum").arg(work.join("hello.deb"))).ok().stdout;
        let index = format!("{control}Filename: hello.deb\nSize: {}\nSHA256: {}\n", deb.len(), &digest[..64]);
        let files = [("/hello.deb".to_owned(), deb), ("/Packages".to_owned(), index.into_bytes())];
        Arc::new(Self { files: files.into(), asked: Mutex::default() })
    }

    /// How often the package was asked for since this was asked last.
    fn downloads(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).iter().filter(|path| path.ends_with(".deb")).count()
    }
}

#[test]
fn a_package_that_one_runner_downloaded_another_does_not() {
    require!(Debian, Program("dpkg-deb"));
    let (registry, work) = (Registry::open(), tempfile::tempdir().unwrap());
    let archive = Archive::new(work.path());
    let server = Server::start(archive.clone());
    let context = Context::new(&format!(
        "FROM {}\nRUN --mount=type=cache,id=apt,target=/var/cache/apt,sharing=locked \\\n  \
         rm -rf /etc/apt/sources.list* /etc/apt/apt.conf.d/docker-clean; \\\n  \
         echo 'deb [trusted=yes] http://{}/ ./' > /etc/apt/sources.list; \\\n  \
         apt-get -o APT::Sandbox::User=root -o Binary::apt::APT::Keep-Downloaded-Packages=true \\\n  \
         -o APT::Keep-Downloaded-Packages=true update && apt-get -o APT::Sandbox::User=root \\\n  \
         -o APT::Keep-Downloaded-Packages=true install -y kiln-hello && cat /usr/share/hello/greeting\n",
        base::debian(),
        server.host()
    ));
    let place = format!("type=registry,ref={}", registry.image("mounts"));
    let build = |argument: &str| {
        let built = Kiln::new().build(&context, &[argument]).ok();
        assert!(built.stderr.contains("hello from the package"), "{built}");
        archive.downloads()
    };
    assert_eq!(build(&format!("--cache-mounts-to={place}")), 1);
    assert_eq!(build("--jobs=2"), 1, "without the mount it is fetched again");
    assert_eq!(build(&format!("--cache-mounts-from={place}")), 0);
}
