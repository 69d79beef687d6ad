//! Lists the files of `topics/`, so that a file added there is in the binary without another edit, and keeps the program small.

use std::{env, error::Error, fmt::Write, fs, path::Path, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    list_topics()?;
    if runs_packed_relocations() {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    Ok(())
}

/// Whether the C library knows places to relocate as a bitmap, 1.6 MB shorter than as a table: glibc does since 2.36.
fn runs_packed_relocations() -> bool {
    let here = env::var("HOST") == env::var("TARGET") && env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu");
    let version = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok().and_then(|out| String::from_utf8(out.stdout).ok());
    let (major, minor) = version.as_deref().and_then(|text| text.trim().strip_prefix("glibc ")?.split_once('.')).unwrap_or_default();
    let number = |text: &str| text.parse::<u32>().unwrap_or_default();
    here && (number(major), number(minor)) >= (2, 36)
}

fn list_topics() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("topics");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files: Vec<_> = fs::read_dir(root.join("events"))?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.insert(0, root.join("topics.yaml"));
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root)?;
        writeln!(list, "    ({:?}, include_str!({:?})),", name.display().to_string().replace('\\', "/"), file.display().to_string())?;
    }
    list.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("topics.rs"), list)?;
    Ok(())
}
