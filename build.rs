//! Lists the files of `topics/`, so that a file added there is in the binary without another edit.

use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
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
