//! The values of `RUN --device`: a CDI device and whether it must be there.

use super::csv;
use super::mount::{MountError, parse_bool};
use super::suggest::did_you_mean;

/// A parsed `--device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The CDI device.
    pub name: String,
    /// Whether it must be there.
    pub required: bool,
}

/// Parses one `--device` value.
pub fn parse_device(raw: &str) -> Result<DeviceSpec, MountError> {
    let mut device = DeviceSpec { name: String::new(), required: false };
    for field in csv::fields(raw).map_err(|error| format!("failed to parse csv devices: {error}"))? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                device.required =
                    parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            ("name", Some(_)) if !device.name.is_empty() => {
                return Err(format!("device name already set to {}", device.name).into());
            }
            ("name", Some(value)) => value.clone_into(&mut device.name),
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair").into()),
            (_, Some(_)) => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(did_you_mean(message, &key, ["name", "required"], true).into());
            }
        }
    }
    Ok(device)
}
