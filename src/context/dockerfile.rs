//! The Dockerfile and the ignore file of a context.

use std::io;
use std::path::{Path, PathBuf};

use super::{ContextError, Ignore};
use crate::tree::RootDir;

const DEFAULT_NAME: &str = "Dockerfile";
const LOWER_CASE_NAME: &str = "dockerfile";
const IGNORE_NAME: &str = ".dockerignore";

/// Reads the Dockerfile of a context: `name`, or else `Dockerfile`. Where that is called `Dockerfile` and is missing,
/// `dockerfile` will do. Returns the name it has.
///
/// Links are followed below `root`.
pub fn find_dockerfile(
    root: &RootDir,
    name: Option<&str>,
) -> Result<Option<(String, Vec<u8>)>, ContextError> {
    let name = name.unwrap_or(DEFAULT_NAME);
    if let Some(content) = read(root, Path::new(name))? {
        return Ok(Some((name.to_owned(), content)));
    }
    let Some(directory) = name.strip_suffix(DEFAULT_NAME).filter(|d| d.is_empty() || d.ends_with('/')) else {
        return Ok(None);
    };
    let name = format!("{directory}{LOWER_CASE_NAME}");
    Ok(read(root, Path::new(&name))?.map(|content| (name, content)))
}

/// Reads the ignore file that goes with a Dockerfile: `<Dockerfile>.dockerignore` beside it, which may lie outside
/// of the context, or else the context's own `.dockerignore`.
///
/// `dockerfile` is the directory the Dockerfile is in and its path there; a Dockerfile from elsewhere has none.
pub fn find_ignore(context: &RootDir, dockerfile: Option<(&RootDir, &Path)>) -> Result<Ignore, ContextError> {
    let mut places: Vec<(&RootDir, PathBuf)> = Vec::new();
    if let Some((root, path)) = dockerfile {
        places.push((root, beside(path)));
        // The default's own ignore file also goes with its lower-case stand-in.
        if path.file_name().is_some_and(|name| name == LOWER_CASE_NAME) {
            places.push((root, beside(&path.with_file_name(DEFAULT_NAME))));
        }
    }
    places.push((context, PathBuf::from(IGNORE_NAME)));
    for (root, path) in places {
        if let Some(text) = read(root, &path)? {
            return Ignore::parse(&text);
        }
    }
    Ok(Ignore::none())
}

fn beside(dockerfile: &Path) -> PathBuf {
    let mut path = dockerfile.to_path_buf().into_os_string();
    path.push(IGNORE_NAME);
    path.into()
}

fn read(root: &RootDir, path: &Path) -> Result<Option<Vec<u8>>, ContextError> {
    match root.read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(ContextError::file("read", &root.path().join(path))(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir, RootDir);

    fn tree(files: &[(&str, &str)]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = RootDir::open(dir.path()).unwrap();
        Tree(dir, root)
    }

    fn found(tree: &Tree, name: Option<&str>) -> Option<(String, String)> {
        find_dockerfile(&tree.1, name).unwrap().map(|(name, text)| (name, String::from_utf8(text).unwrap()))
    }

    fn pair(name: &str, text: &str) -> Option<(String, String)> {
        Some((name.to_owned(), text.to_owned()))
    }

    #[test]
    fn dockerfiles_by_name() {
        let tree = tree(&[("Dockerfile", "D"), ("sub/dockerfile", "s"), ("dev.Dockerfile", "d"), ("x", "x")]);
        assert_eq!(found(&tree, None), pair("Dockerfile", "D"));
        assert_eq!(found(&tree, Some("dev.Dockerfile")), pair("dev.Dockerfile", "d"));
        assert_eq!(found(&tree, Some("sub/Dockerfile")), pair("sub/dockerfile", "s"));
        assert_eq!(found(&tree, Some("/sub/../Dockerfile")), pair("/sub/../Dockerfile", "D"));
        assert_eq!(found(&tree, Some("missing")), None);
        assert_eq!(found(&tree, Some("test.Dockerfile")), None);
        assert_eq!(found(&tree, Some("x/Dockerfile")), None);
        assert!(find_dockerfile(&tree.1, Some("sub")).unwrap_err().to_string().starts_with("cannot read `/"));
    }

    #[test]
    fn lower_case_stands_in_for_the_default_alone() {
        let both = tree(&[("Dockerfile", "D"), ("dockerfile", "d")]);
        assert_eq!(found(&both, None), pair("Dockerfile", "D"));
        let lower = tree(&[("dockerfile", "d")]);
        assert_eq!(found(&lower, None), pair("dockerfile", "d"));
        assert_eq!(found(&lower, Some("DOCKERFILE")), None);
        assert_eq!(found(&tree(&[]), None), None);
    }

    #[test]
    fn links_are_followed_below_the_root() {
        let tree = tree(&[("real/file", "R")]);
        symlink("/real/file", tree.0.path().join("Dockerfile")).unwrap();
        assert_eq!(found(&tree, None), pair("Dockerfile", "R"));
        symlink("../../../../../etc/passwd", tree.0.path().join("out")).unwrap();
        assert_eq!(found(&tree, Some("out")), None);
    }

    fn hidden(context: &Tree, dockerfile: Option<(&Tree, &str)>) -> Vec<&'static str> {
        let dockerfile = dockerfile.map(|(tree, path)| (&tree.1, Path::new(path)));
        let ignore = find_ignore(&context.1, dockerfile).unwrap();
        ["root", "own", "default"].into_iter().filter(|name| ignore.is_ignored(Path::new(name))).collect()
    }

    #[test]
    fn the_dockerfiles_ignore_file_wins() {
        let context = tree(&[
            (".dockerignore", "root"),
            ("dev.Dockerfile.dockerignore", "own"),
            ("sub/Dockerfile.dockerignore", "own"),
            ("Dockerfile.dockerignore", "default"),
        ]);
        assert_eq!(hidden(&context, None), ["root"]);
        assert_eq!(hidden(&context, Some((&context, "Dockerfile"))), ["default"]);
        assert_eq!(hidden(&context, Some((&context, "dockerfile"))), ["default"]);
        assert_eq!(hidden(&context, Some((&context, "dev.Dockerfile"))), ["own"]);
        assert_eq!(hidden(&context, Some((&context, "sub/Dockerfile"))), ["own"]);
        assert_eq!(hidden(&context, Some((&context, "sub/other"))), ["root"]);
        let elsewhere = tree(&[("d.dockerignore", "own"), (".dockerignore", "default")]);
        assert_eq!(hidden(&context, Some((&elsewhere, "d"))), ["own"]);
        assert_eq!(hidden(&context, Some((&elsewhere, "e"))), ["root"]);
        assert!(hidden(&tree(&[]), None).is_empty());
    }

    #[test]
    fn an_empty_ignore_file_still_wins() {
        let context = tree(&[(".dockerignore", "root"), ("Dockerfile.dockerignore", "")]);
        assert!(hidden(&context, Some((&context, "Dockerfile"))).is_empty());
    }
}
