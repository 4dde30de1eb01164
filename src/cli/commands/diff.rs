//! `kiln diff`: what differs between two images, wherever they are.
//!
//! Text is for people: a line that sums it up, then what differs in groups, `-` only the first has, `+` only the second,
//! `~` both but differently. JSON has everything.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::images::size_bytes;
use super::{locate, open_store, print, print_json, write_line};
use crate::cli::args::{DiffArgs, Format};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::bytes;
use crate::cli::request::platform;
use crate::compare::{
    FieldChange, ImageDiff, LayerChange, Likeness, PathChange, Side, Subject, compare_images,
};
use crate::oci::{Image, Layer, Platform};
use crate::text::line;

/// Compares two images.
pub(super) fn run(args: &DiffArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    match compare(args, environment, out) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Different),
        Err(failure) => Err(Failure::Diff(Box::new(failure))),
    }
}

fn compare(args: &DiffArgs, environment: &Environment, out: &mut dyn Write) -> Result<bool, Failure> {
    let platform = args.platform.as_deref().map(platform).transpose()?.unwrap_or_else(Platform::host);
    let store = open_store(&args.store, environment)?;
    let find = |text: &str| -> Result<Subject, Failure> {
        let found = locate::anywhere(text, &platform, environment, &args.registry, &store)?;
        Ok(Subject { image: found.image, blobs: found.blobs })
    };
    let (first, second) = (find(&args.first)?, find(&args.second)?);
    let diff = compare_images(&first, &second)?;
    match args.format {
        Format::Json => {
            let mut value = as_json(&diff);
            let named =
                |text: &str, subject: &Subject| json!({"name": text, "digest": subject.image.digest()});
            value["images"] = json!([named(&args.first, &first), named(&args.second, &second)]);
            print_json(out, &value)?;
        }
        Format::Text => {
            let colour = environment.stdout_is_terminal && environment.set_var("NO_COLOR").is_none();
            let mut page = Page { out, colour };
            page.summary(&diff)?;
            if !diff.same {
                page.image('-', &args.first, &first.image)?;
                page.image('+', &args.second, &second.image)?;
                page.differences(&diff, args.layers)?;
            }
        }
    }
    Ok(diff.same)
}

/// Where text goes.
struct Page<'a> {
    out: &'a mut dyn Write,
    colour: bool,
}

impl Page<'_> {
    fn line(&mut self, text: &str) -> Result<(), Failure> {
        print(self.out, text)
    }

    /// Writes a line of a group behind its sign.
    fn entry(&mut self, sign: char, text: &str) -> Result<(), Failure> {
        let paint = match sign {
            '-' => "\x1b[31m",
            '+' => "\x1b[32m",
            '~' => "\x1b[33m",
            _ => "",
        };
        if self.colour && !paint.is_empty() {
            return write_line(self.out, &format!("  {paint}{sign}\x1b[0m {}", line(text)));
        }
        self.line(&format!("  {sign} {text}"))
    }

    fn heading(&mut self, text: &str) -> Result<(), Failure> {
        let (begin, end) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        write_line(self.out, &format!("\n{begin}{}{end}", line(text)))
    }

    fn summary(&mut self, diff: &ImageDiff) -> Result<(), Failure> {
        let text = summary(diff);
        self.line(&text)
    }

    fn image(&mut self, sign: char, name: &str, image: &Image) -> Result<(), Failure> {
        let created = image.config.created.as_deref().unwrap_or("no time");
        self.entry(sign, &format!("{name}  {}  {created}  {}", image.digest(), bytes(size_bytes(image))))
    }

    fn differences(&mut self, diff: &ImageDiff, by_layer: bool) -> Result<(), Failure> {
        let groups = [("manifest", &diff.manifest), ("config", &diff.config), ("history", &diff.history)];
        for (name, fields) in groups.into_iter().filter(|(_, fields)| !fields.is_empty()) {
            self.heading(name)?;
            let width = fields.iter().map(|field| field.name.chars().count()).max().unwrap_or(0);
            for field in fields {
                self.field(field, width)?;
            }
        }
        if diff.layers.iter().any(|layer| layer.likeness != Likeness::Same) {
            self.layers(&diff.layers, by_layer)?;
        }
        if !by_layer && !diff.paths.is_empty() {
            self.heading("files")?;
            self.paths(&diff.paths)?;
        }
        Ok(())
    }

    fn field(&mut self, field: &FieldChange, width: usize) -> Result<(), Failure> {
        let name = &field.name;
        match (&field.before, &field.after) {
            (Some(before), None) => self.entry('-', &format!("{name:width$}  {before}")),
            (None, Some(after)) => self.entry('+', &format!("{name:width$}  {after}")),
            (before, after) => {
                let (before, after) = (before.as_deref().unwrap_or(""), after.as_deref().unwrap_or(""));
                self.entry('~', &format!("{name:width$}  {before} → {after}"))
            }
        }
    }

    fn layers(&mut self, layers: &[LayerChange], by_layer: bool) -> Result<(), Failure> {
        self.heading("layers")?;
        let mut number = 0;
        while number < layers.len() {
            let same = layers[number..].iter().take_while(|layer| layer.likeness == Likeness::Same).count();
            match same {
                0 => {}
                1 => self.entry('=', &format!("{:<4} the same", number + 1))?,
                _ => {
                    self.entry('=', &format!("{:<4} the same", format!("{}-{}", number + 1, number + same)))?
                }
            }
            number += same;
            if let Some(layer) = layers.get(number).filter(|layer| layer.likeness != Likeness::Same) {
                self.layer(number + 1, layer)?;
                if by_layer {
                    self.paths(&layer.entries)?;
                }
                number += 1;
            }
        }
        Ok(())
    }

    fn layer(&mut self, number: usize, layer: &LayerChange) -> Result<(), Failure> {
        let short = |place: &Option<(usize, Layer)>| {
            place.as_ref().map(|(_, layer)| layer.digest().short().to_owned())
        };
        let (sign, digests) = match (short(&layer.before), short(&layer.after)) {
            (Some(before), None) => ('-', before),
            (None, Some(after)) => ('+', after),
            (before, after) => {
                ('~', format!("{} → {}", before.unwrap_or_default(), after.unwrap_or_default()))
            }
        };
        let how = match layer.likeness {
            Likeness::Same => "the same".to_owned(),
            Likeness::Compression => "the same content, compressed differently".to_owned(),
            Likeness::Form => "the same entries, in another order or form".to_owned(),
            Likeness::Entries | Likeness::Alone(_) => counted(layer.entries.len(), "path"),
        };
        self.entry(sign, &format!("{number:<4} {digests}  {how}  {}", one_line(&layer.created_by)))
    }

    /// Writes paths; what is below a directory that only one side has is counted.
    fn paths(&mut self, changes: &[PathChange]) -> Result<(), Failure> {
        let whole: BTreeSet<(&Path, bool)> = changes.iter().filter_map(whole_directory).collect();
        let is_inside = |change: &PathChange| {
            let mut above = change.path.ancestors().skip(1);
            above.any(|path| whole.contains(&(path, change.side == Side::First))) && change.side != Side::Both
        };
        let shown: Vec<&PathChange> = changes.iter().filter(|change| !is_inside(change)).collect();
        let name = |change: &PathChange| change.path.display().to_string();
        let width = shown.iter().map(|change| name(change).chars().count().min(48)).max().unwrap_or(0);
        for change in shown {
            let sign = sign(change.side);
            let below = changes.iter().filter(|other| {
                other.side == change.side && other.path != change.path && other.path.starts_with(&change.path)
            });
            let below = match whole_directory(change).map_or(0, |_| below.count()) {
                0 => String::new(),
                count => format!(" and {} below", counted(count, "path")),
            };
            self.entry(sign, &format!("{:width$}  {}{below}", name(change), describe(change)))?;
        }
        Ok(())
    }
}

/// Returns a directory that only one side has, and whether that is the first.
fn whole_directory(change: &PathChange) -> Option<(&Path, bool)> {
    let kind = change.field("type")?;
    let (kind, first) = match change.side {
        Side::First => (&kind.before, true),
        Side::Second => (&kind.after, false),
        Side::Both => return None,
    };
    (kind.as_deref() == Some("directory")).then_some((change.path.as_path(), first))
}

fn sign(side: Side) -> char {
    match side {
        Side::First => '-',
        Side::Second => '+',
        Side::Both => '~',
    }
}

fn summary(diff: &ImageDiff) -> String {
    if diff.same {
        return "the same image".to_owned();
    }
    let layers = diff.layers.iter().filter(|layer| layer.likeness != Likeness::Same).count();
    let mut parts = Vec::new();
    if layers > 0 {
        parts.push(format!("{layers} of {}", counted(diff.layers.len(), "layer")));
        parts.push(counted(diff.paths.len(), "path"));
    }
    let fields =
        [(&diff.manifest, "manifest field"), (&diff.config, "config field"), (&diff.history, "history line")];
    parts.extend(fields.into_iter().filter(|(f, _)| !f.is_empty()).map(|(f, name)| counted(f.len(), name)));
    if parts.is_empty() {
        return "different: the same content in documents of another form".to_owned();
    }
    format!("different: {}", parts.join(", "))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn one_line(text: &str) -> String {
    const CHARACTERS: usize = 72;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.chars().count() > CHARACTERS {
        true => line.chars().take(CHARACTERS - 1).chain(['…']).collect(),
        false => line,
    }
}

/// Says of a path what differs, or what it is.
fn describe(change: &PathChange) -> String {
    let value = |name: &str| {
        let field = change.field(name)?;
        field.before.clone().or(field.after.clone())
    };
    if change.side != Side::Both {
        let size =
            value("size").map(|size| format!(" {}", bytes(size.parse().unwrap_or(0)))).unwrap_or_default();
        let target = value("target").map(|target| format!(" → {target}")).unwrap_or_default();
        let of = |name: &str| value(name).unwrap_or_default();
        return format!("{} {} {}{size}{target}", of("type"), of("mode"), of("owner"));
    }
    let fields = change.fields.iter().map(|field| match field.name.as_str() {
        "content" => "content".to_owned(),
        name => {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            format!("{name} {} → {}", shown(&field.before), shown(&field.after))
        }
    });
    fields.collect::<Vec<_>>().join(", ")
}

/// Describes everything that differs.
pub(crate) fn as_json(diff: &ImageDiff) -> Value {
    json!({
        "same": diff.same,
        "manifest": fields_json(&diff.manifest),
        "config": fields_json(&diff.config),
        "history": fields_json(&diff.history),
        "layers": diff.layers.iter().map(layer_json).collect::<Vec<_>>(),
        "paths": diff.paths.iter().map(path_json).collect::<Vec<_>>(),
    })
}

fn fields_json(fields: &[FieldChange]) -> Value {
    let value = |field: &FieldChange| json!({ "before": field.before, "after": field.after });
    Value::Object(fields.iter().map(|field| (field.name.clone(), value(field))).collect::<Map<_, _>>())
}

fn layer_json(layer: &LayerChange) -> Value {
    let place = |place: &Option<(usize, Layer)>| {
        place.as_ref().map(|(position, layer)| {
            json!({
                "position": position,
                "digest": layer.descriptor.digest().to_string(),
                "diffId": layer.diff_id.to_string(),
                "sizeBytes": layer.descriptor.size(),
            })
        })
    };
    let likeness = match layer.likeness {
        Likeness::Same => "same",
        Likeness::Compression => "same content, other compression",
        Likeness::Form => "same entries, other form",
        Likeness::Entries => "different",
        Likeness::Alone(Side::First) => "removed",
        Likeness::Alone(_) => "added",
    };
    json!({
        "before": place(&layer.before),
        "after": place(&layer.after),
        "createdBy": layer.created_by,
        "likeness": likeness,
        "entries": layer.entries.iter().map(path_json).collect::<Vec<_>>(),
    })
}

fn path_json(change: &PathChange) -> Value {
    let how = match change.side {
        Side::First => "removed",
        Side::Second => "added",
        Side::Both => "changed",
    };
    let path: PathBuf = change.path.clone();
    json!({ "path": path.to_string_lossy(), "change": how, "fields": fields_json(&change.fields) })
}
