//! Literal digests: the bytes of layers and images must not drift unseen, whatever the compressor's version, the number of
//! threads or the storage.
//!
//! Inputs are made here and nowhere else: no base image, no program of the machine. Whoever changes a digest below changes
//! every image that kiln's users compare; the CHANGELOG has to say so.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::reproducible::on_directory_storage;
use crate::support::need::{Program, Root};
use crate::support::{Context, Image, Kiln, run};

/// Level, layers and image, as `compression=` names them.
struct Golden {
    compression: &'static str,
    image: &'static str,
    layers: [&'static str; 4],
}

const GOLDEN: [Golden; 4] = [
    Golden {
        compression: "gzip",
        image: "sha256:96ca06577d06e9675ad27356950bca9a8fe1eb576189aee307904cbc2bebe308",
        layers: [
            "sha256:ee1c26635b4fc9c1bfe2eb489f61b033d5a795dd28433ab2c25b44dd48eab32c",
            "sha256:829484a487e88c88e44d1f30617768f3932bbbce43ae42d639302de1f7c98856",
            "sha256:e78d0d53a69fbb831b4d783ac376e9a4121998e41341fa1f8220a95725f37ed4",
            "sha256:5bed58d84b1a19b13088d039acaa5a61cfa3237363428d392fb7a8edd654a78b",
        ],
    },
    Golden {
        compression: "gzip,compression-level=9",
        image: "sha256:9825e433670ac2bc8185710440b9c623b972fec40d5de8e2b04064c4f5edb9fc",
        layers: [
            "sha256:5fce0db35208a17bbf56ec4b2665f16029af26576c38d3acfc9db01bbe3b5a09",
            "sha256:b794faedea454a7be8362e7440f542a82881b6cee94a6f9c36b0fe898afcc633",
            "sha256:7d2f9db45164807ac2a9fca499d47140f47e48e0fa0bf590506010f333e52e34",
            "sha256:0b64b18850a18bb1403a2bf5e1a1e0a5efadec00a6d2aef7ffd3e6a8fe787064",
        ],
    },
    Golden {
        compression: "zstd",
        image: "sha256:d8ad31e1001120732a71386b1007c15effea39877450ac53daf1fc6bbb5b2235",
        layers: [
            "sha256:db9d4d4b83d569d447889e71c6aef0d040c34be282232ae72daec887ef94f13f",
            "sha256:d3f34a2181d681a151c08edc8587096b292095f41fb9ec8962231a137adc7d8c",
            "sha256:3a4380e61e6005e486b58ee5ae82ba20f6c89bec6f126a0a8d41196934c2b7f1",
            "sha256:aa7d3353c87d73e341fb2c8aebfb093339a5629957bb80c552d1c7f1f6a7bfaa",
        ],
    },
    Golden {
        compression: "uncompressed",
        image: "sha256:b7b813c2b3f2c8b2c6c160a4bebf213036ca81c1ec9f330ad8fc2015d12f3e4c",
        layers: [
            "sha256:2f0df4746d8d542c46a0d0e23a98073cfc4d4efc5152260c51a05f36f0b65e47",
            "sha256:00ad8fad7d5d2bd4a37a0d59e565b10ed77bd40eefcd40194f24cf09eaf53db2",
            "sha256:beeefc497850eb42187bb139df648bc9b28439f06ef3173986c4616c584fe2d7",
            "sha256:dc252eea16f625d8cea9965068070c4144d3b5265a5cbd56cec18afc1b3aff30",
        ],
    },
];

/// What every compressor treats in another way: text, noise, zeros, more than one block and more than one job of zstd's.
fn context() -> Context {
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let mut next = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        };
        (0..length / 8).flat_map(|_| next()).collect()
    };
    let mut archive = tar::Builder::new(Vec::new());
    for name in ["unpacked/one", "unpacked/two"] {
        let mut header = tar::Header::new_ustar();
        header.set_size(name.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(1_000_000_000);
        archive.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    let numbers: String = (0..1_500_000).map(|number| format!("{number}\n")).collect();
    let context = Context::new(
        "FROM scratch\nLABEL a=b\nCOPY tree /tree\nCOPY --chown=7:8 --chmod=0600 <<EOF /inline\nhello\nEOF\n\
         ADD archive.tar /\nWORKDIR /work/place\nENV A=1\nCMD [\"x\"]\n",
    )
    .file("tree/noise", random(3 << 20))
    .file("tree/zeros", vec![0; 2 << 20])
    .file("tree/numbers", numbers)
    .file_with_mode("tree/empty", "", 0o755)
    .symlink("tree/link", "numbers")
    .file("archive.tar", archive.into_inner().unwrap());
    // Whatever the umask of who runs this.
    std::fs::set_permissions(context.at("tree"), std::fs::Permissions::from_mode(0o755)).unwrap();
    context
}

fn arguments(compression: &str) -> Vec<String> {
    let output = format!("--output=type=store,compression={compression}");
    ["--platform=linux/amd64", "--timestamp=1000000000", &output].map(str::to_owned).to_vec()
}

#[test]
fn literal_digests() {
    let context = context();
    let kiln = Kiln::new();
    let mut found = String::new();
    let mut expected = String::new();
    for golden in &GOLDEN {
        let layout = kiln.scratch("layout");
        let output =
            format!("type=oci,tar=false,dest={},compression={}", layout.display(), golden.compression);
        let arguments = ["--platform=linux/amd64", "--timestamp=1000000000", "--output", &output];
        kiln.build(&context, &arguments).ok();
        let image = Image::read(&layout);
        std::fs::remove_dir_all(&layout).unwrap();
        let layers = image.manifest["layers"].as_array().unwrap();
        let layers: Vec<&str> = layers.iter().map(|layer| layer["digest"].as_str().unwrap()).collect();
        found += &format!("{} {} {layers:#?}\n", golden.compression, image.digest);
        expected += &format!("{} {} {:#?}\n", golden.compression, golden.image, golden.layers);
    }
    assert_eq!(found, expected, "found on the left");
}

#[test]
fn literal_digests_with_one_thread() {
    require!(Program("taskset"));
    let context = context();
    for golden in &GOLDEN {
        let kiln = Kiln::new();
        let arguments = arguments(golden.compression);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let build = kiln.build_command(context.path(), &arguments);
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", "0"]).arg(build.get_program()).args(build.get_args());
        assert_eq!(run(&mut pinned).ok().stdout.trim(), golden.image, "{}", golden.compression);
    }
}

#[test]
fn literal_digests_on_directories() {
    require!(Root);
    let context = context();
    for golden in &GOLDEN {
        let arguments = arguments(golden.compression);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let digest = on_directory_storage(&Kiln::new(), &context, &arguments).ok().stdout;
        assert_eq!(digest.trim(), golden.image, "{}", golden.compression);
    }
}
