use super::*;

fn parse(raw: &str) -> Result<MountSpec, String> {
    parse_mount(raw, &mut |value| Ok(value.replace("$X", "cache"))).map_err(|error| error.message)
}

#[test]
fn a_bind_mount_is_the_default() {
    let mount = parse("target=/x,source=a/b").unwrap();
    assert_eq!(mount.target.as_deref(), Some("/x"));
    assert!(mount.read_only);
    assert_eq!(mount.kind, MountKind::Bind { from: None, source: "a/b".to_owned() });
    assert!(!parse("dst=/x,rw").unwrap().read_only);
    assert!(parse("dst=/x,rw=false").unwrap().read_only);
    assert!(!parse("dst=/x,readonly=0").unwrap().read_only);
    let mount = parse("TYPE=Bind,from=base").unwrap();
    assert_eq!(mount.kind, MountKind::Bind { from: Some("base".to_owned()), source: "/".to_owned() });
    assert_eq!(mount.target, None);
}

#[test]
fn cache_mounts() {
    let mount = parse("type=$X,target=/a/../b/,sharing=Locked,mode=0700,uid=5,ro").unwrap();
    assert_eq!(mount.cache_id().as_deref(), Some("/b"));
    assert!(mount.read_only);
    assert_eq!(
        mount.kind,
        MountKind::Cache {
            id: None,
            from: None,
            source: "/".to_owned(),
            sharing: Sharing::Locked,
            mode: Some(0o700),
            uid: Some(5),
            gid: None
        }
    );
    let mount = parse("type=cache,id=\"a,b\",target=x").unwrap_err();
    assert_eq!(
        mount,
        "failed to parse csv mounts: parse error on line 1, column 15: bare \" in non-quoted-field"
    );
    assert_eq!(parse("type=cache,\"id=a,b\",target=x").unwrap().cache_id().as_deref(), Some("a,b"));
    assert_eq!(parse("type=cache").unwrap().cache_id().as_deref(), Some("."));
    assert_eq!(parse("type=cache,id=,target=x/").unwrap().cache_id().as_deref(), Some("x"));
    assert_eq!(parse("type=tmpfs,target=x").unwrap().cache_id(), None);
    assert!(!parse("type=cache,target=/x").unwrap().read_only);
}

#[test]
fn sizes() {
    for (text, bytes) in
        [("128m", 128 << 20), ("1.5GiB", 3 << 29), ("10", 10), ("10b", 10), ("2 kb", 2048), ("1T", 1 << 40)]
    {
        let mount = parse(&format!("type=tmpfs,target=/x,size={text}")).unwrap();
        assert_eq!(mount.kind, MountKind::Tmpfs { size_bytes: Some(bytes) }, "{text}");
    }
    for text in ["m", "-1m", "1x", "1kk", "1kibi", "99999999999999999999p", "1é"] {
        assert_eq!(
            parse(&format!("type=tmpfs,size={text}")).unwrap_err(),
            format!("invalid value for size: {text}")
        );
    }
}

#[test]
fn secrets_and_agents() {
    let id = |raw| match parse(raw).unwrap().kind {
        MountKind::Secret { id, .. } | MountKind::Ssh { id, .. } => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id("type=secret,id=a"), "a");
    assert_eq!(id("type=secret,src=a/b"), "a/b");
    assert_eq!(id("type=secret,target=/x/y/"), "y");
    assert_eq!(id("type=ssh"), "default");
    let mount = parse("type=secret,required,id=a,env=TOKEN,mode=0440,gid=7").unwrap();
    assert_eq!(
        mount.kind,
        MountKind::Secret {
            id: "a".to_owned(),
            env: Some("TOKEN".to_owned()),
            required: true,
            mode: 0o440,
            uid: 0,
            gid: 7
        }
    );
}

#[test]
fn errors_have_their_literal_text() {
    for (raw, error) in [
        ("typ=tmpfs", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
        ("type=tmp", "unsupported mount type \"tmp\" (did you mean tmpfs?)"),
        ("type=bin", "unsupported mount type \"bin\" (did you mean bind?)"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("required=true,type=secret", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,size=1m", "unexpected key 'size' for mount type 'cache'"),
        ("type=secret,id=a,required=maybe", "invalid value for required: maybe"),
        ("uid=1", "uid not allowed for \"bind\" type mounts"),
        ("type=tmpfs,mode=0700", "mode not allowed for \"tmpfs\" type mounts"),
        ("mode=9,type=cache", "invalid value 9 for mode"),
        ("uid=-1,type=cache", "invalid value -1 for uid"),
        ("sharing=locked", "invalid cache sharing set for bind mount"),
        ("sharing=x", "unsupported sharing value \"x\""),
        ("type=secret,sharing=locked,id=a", "secret mount should not define sharing"),
        ("type=secret,from=b,id=a", "secret mount should not have a from"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=ssh,source=b", "ssh does not support source"),
        ("x", "invalid field 'x' must be a key=value pair"),
        ("target=/x,ro=2", "invalid value for ro: 2"),
        ("", "failed to parse csv mounts: EOF"),
        (
            "\"target=/x",
            "failed to parse csv mounts: parse error on line 1, column 2: extraneous or missing \" in quoted-field",
        ),
    ] {
        assert_eq!(parse(raw).unwrap_err(), error, "{raw}");
    }
}

#[test]
fn from_is_never_expanded() {
    assert_eq!(
        check_unexpanded("type=cache,from=$x").unwrap_err().message,
        "'from' doesn't support variable expansion, define alias stage instead"
    );
    check_unexpanded("type=cache,from=x$,target=$y").unwrap();
    assert_eq!(unexpanded_from("type=$t,FROM=a,target=/x").as_deref(), Some("a"));
    assert_eq!(unexpanded_from("target=/x"), None);
}

#[test]
fn devices() {
    let parse = |raw| parse_device(raw).map_err(|error| error.message);
    let device = |name: &str, required| DeviceSpec { name: name.to_owned(), required };
    assert_eq!(parse("vendor.com/gpu=all,required"), Ok(device("vendor.com/gpu=all", true)));
    assert_eq!(parse("name=x,required=false"), Ok(device("x", false)));
    assert_eq!(parse("x,name=y").unwrap_err(), "device name already set to x");
    assert_eq!(
        parse("x,requird=1").unwrap_err(),
        "unexpected key 'requird' in 'requird=1' (did you mean required?)"
    );
    assert_eq!(parse("x,y").unwrap_err(), "invalid field 'y' must be a key=value pair");
}
