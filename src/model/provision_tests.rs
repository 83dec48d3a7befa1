use super::*;
use proptest::prelude::*;

const SHA256: &str = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";

fn program(text: &str) -> Result<Program, &'static str> {
    text.replace("SHA", SHA256).parse()
}

#[test]
fn a_program_is_named_with_all_that_makes_it_one() {
    let lnd = program("lnd:arm64:SHA:https://example.com:8443/v1/lnd.tar.gz?x=%20&y=1+2").unwrap();
    assert_eq!((lnd.name, lnd.arch, lnd.sha256.as_str()), (ProgramName::Lnd, Arch::Arm64, &*SHA256.to_lowercase()));
    assert_eq!(program("scale-lnd:x86_64:SHA:https://e.x/a").unwrap().name, ProgramName::ScaleLnd);
    for wrong in [
        "lnd:arm64:SHA",
        "btcd:arm64:SHA:https://e.x/a",
        "lnd:aarch64:SHA:https://e.x/a",
        "lnd:arm64:00:https://e.x/a",
        "lnd:arm64:xHA:https://e.x/a",
        "lnd:arm64:SHA:http://e.x/a",
        "lnd:arm64:SHA:https://",
        "lnd:arm64:SHA:https:///a",
        "lnd:arm64:SHA:https://user@e.x/a",
        "lnd:arm64:SHA:https://e.x/a b",
        "lnd:arm64:SHA:https://e.x/$(a)",
        "lnd:arm64:SHA:https://e.x/a\nlnd",
    ] {
        assert!(program(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn networks_are_whole() {
    for right in ["10.0.1.0/24", "10.0.0.6", "10.0.0.0/8", "fd00:1::/64", "fd00::1"] {
        assert_eq!(right.parse::<Net>().unwrap().to_string(), right);
    }
    for wrong in
        ["10.0.1.1/24", "10.0.0.0/7", "0.0.0.0/0", "10.0.0.0/33", "10.0.0", "fd00::1/64", "::/0", "a", "10.0.0.0/"]
    {
        assert!(wrong.parse::<Net>().is_err(), "{wrong}");
    }
    let reach = |text: &str| text.parse::<Reach>().map(|reach| (reach.net.to_string(), reach.ports));
    assert_eq!(reach("10.0.0.6:8333"), Ok(("10.0.0.6".to_owned(), (8333, 8333))));
    assert_eq!(reach("10.0.1.0/24:1-65535"), Ok(("10.0.1.0/24".to_owned(), (1, 65_535))));
    assert_eq!(reach("[fd00::]/64:8333"), Ok(("fd00::/64".to_owned(), (8333, 8333))));
    for wrong in ["10.0.0.6", "10.0.0.6:0", "10.0.0.6:2-1", "fd00::1:8333", "a:1", "10.0.0.6:1-", "[10.0.0.6]:1"] {
        assert!(reach(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn link_local_networks_are_known() {
    let is = |text: &str| is_link_local(text.parse().unwrap());
    for text in
        ["169.254.169.254", "169.0.0.0/8", "169.254.0.0/16", "fe80::1", "febf::/16", "fd00:ec2::254", "fd00::/16"]
    {
        assert!(is(text), "{text}");
    }
    for text in ["169.253.0.0/16", "10.0.0.0/8", "fec0::/16", "fd00:ec3::/32", "127.0.0.1"] {
        assert!(!is(text), "{text}");
    }
}

#[test]
fn instance_types_say_what_they_run() {
    for arm in ["t4g.small", "m7gd.large", "a1.large", "im4gn.large", "g5g.xlarge", "x2gd.medium"] {
        assert_eq!(Arch::of_instance_type(arm), Arch::Arm64, "{arm}");
    }
    for intel in ["t3.small", "t3a.small", "g4dn.xlarge", "m7i.large", "u-6tb1.metal", "c7a.large", "gr6.4xlarge"] {
        assert_eq!(Arch::of_instance_type(intel), Arch::X86_64, "{intel}");
    }
}

/// Whatever is put into a good one, at whatever place.
fn spoilt(good: &'static str) -> impl Strategy<Value = String> {
    (0..=good.len(), ".{0,4}|[$`\"'\\\\\n;|&<>{}@#\t ]{1,3}").prop_map(move |(at, more)| {
        let (before, after) = good.split_at(at);
        format!("{before}{more}{after}")
    })
}

proptest! {
    #[test]
    fn nothing_that_means_more_gets_through(
        program in spoilt("lnd:x86_64:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08:https://e.x/a"),
        reach in spoilt("10.0.1.0/24:9735"),
    ) {
        if let Ok(program) = program.parse::<Program>() {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:?&=%+".contains(&b);
            prop_assert!(program.url.bytes().all(fits) && program.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
        }
        if let Ok(reach) = reach.parse::<Reach>() {
            let fits = |b: u8| b.is_ascii_hexdigit() || b"./:".contains(&b);
            prop_assert!(reach.net.to_string().bytes().all(fits));
        }
    }
}
