//! A small site that looks like WordPress. It has the files that people look for, but does not run.

use std::fs;
use std::io;
use std::path::Path;

const FILES: [(&str, &str); 9] = [
    ("index.php", "<?php\n// Front controller.\nrequire __DIR__ . '/wp-blog-header.php';\n"),
    ("wp-blog-header.php", "<?php\nrequire_once __DIR__ . '/wp-load.php';\n"),
    ("wp-load.php", "<?php\ndefine( 'ABSPATH', __DIR__ . '/' );\nrequire_once ABSPATH . 'wp-config.php';\n"),
    ("wp-config.php", "<?php\n// Reads what the platform puts into the environment.\n$table_prefix = 'wp_';\n"),
    ("wp-content/themes/sunrise/style.css", "/*\nTheme Name: Sunrise\n*/\nbody {\n\tcolor: #333;\n}\n"),
    ("wp-content/themes/sunrise/functions.php", "<?php\nadd_theme_support( 'title-tag' );\n"),
    ("wp-content/plugins/hello-site/hello-site.php", "<?php\n/*\nPlugin Name: Hello Site\n*/\n"),
    ("wp-includes/version.php", "<?php\n$wp_version = '6.0-sim';\n"),
    (".gitignore", "wp-content/uploads\nwp-content/cache/\n*.log\n*.sql\n*.zip\n*.gz\n.DS_Store\n"),
];

/// Files per directory of `wp-includes`, so that walks have something to do.
const FILLERS: usize = 20;

pub(super) fn write(code: &Path) -> io::Result<()> {
    for (name, text) in FILES {
        put(code, name, text)?;
    }
    for part in ["blocks", "rest-api", "js/dist", "css/dist", "fonts"] {
        for n in 0..FILLERS {
            let text =
                format!("<?php\n// {part}, part {n}\nfunction sim_{n}() {{\n\treturn {n};\n}}\n").repeat(1 + n % 7);
            put(code, &format!("wp-includes/{part}/part-{n:02}.php"), &text)?;
        }
    }
    Ok(())
}

fn put(code: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = code.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)
}
