// SPDX-License-Identifier: Apache-2.0
//! The value of `--serial`.

use super::kv;
use crate::config::{SerialInput, SerialOutput, SerialPort};
use std::path::PathBuf;

/// What one `--serial` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serial {
    /// A 16550.
    Port(SerialPort),
    /// A virtio console of this number; its other values are those of a port.
    VirtioConsole(SerialPort),
}

#[derive(Default)]
struct Fields<'a> {
    output: Option<&'a str>,
    path: Option<&'a str>,
    input: Option<&'a str>,
    hardware: Option<&'a str>,
    number: Option<&'a str>,
    stdin: bool,
    console: bool,
    earlycon: bool,
}

/// Parses the value of `--serial`.
pub fn parse(value: &str) -> Result<Serial, String> {
    let fields = fields(value)?;
    let number = match fields.number {
        None => 1,
        Some(text) => text.parse().map_err(|_| format!("num={text} is not a number"))?,
    };
    let port = SerialPort {
        number,
        output: output(&fields)?,
        input: match (fields.input, fields.stdin) {
            (Some(_), true) => return Err("input= and stdin exclude each other".into()),
            (Some(path), false) => Some(SerialInput::File(PathBuf::from(path))),
            (None, true) => Some(SerialInput::Stdin),
            (None, false) => None,
        },
        console: fields.console,
        earlycon: fields.earlycon,
    };
    match fields.hardware {
        None | Some("serial") if (1..=4).contains(&number) => Ok(Serial::Port(port)),
        None | Some("serial") => Err(format!("num={number}: serial ports are 1 to 4")),
        Some("virtio-console") if number >= 1 => Ok(Serial::VirtioConsole(port)),
        Some("virtio-console") => Err("num=0: consoles count from 1".into()),
        Some(other) => Err(format!("hardware={other}: serial and virtio-console are supported")),
    }
}

fn fields(value: &str) -> Result<Fields<'_>, String> {
    let mut fields = Fields::default();
    for item in kv::parse(value).map_err(|e| e.to_string())? {
        match (item.key, item.value) {
            ("type", value) => fields.output = value,
            ("path", value) => fields.path = value,
            ("input", value) => fields.input = value,
            ("hardware", value) => fields.hardware = value,
            ("num", value) => fields.number = value,
            ("stdin", value) => fields.stdin = flag("stdin", value)?,
            ("console", value) => fields.console = flag("console", value)?,
            ("earlycon", value) => fields.earlycon = flag("earlycon", value)?,
            (key, _) => return Err(format!("unknown key {key}")),
        }
    }
    Ok(fields)
}

/// A key without a value is true.
pub(super) fn flag(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!("{key}={other}: true or false is expected")),
    }
}

fn output(fields: &Fields<'_>) -> Result<SerialOutput, String> {
    match (fields.output, fields.path) {
        (Some("file"), Some(path)) => Ok(SerialOutput::File(PathBuf::from(path))),
        (Some("file"), None) => Err("type=file needs path=".into()),
        (Some("stdout"), _) => Ok(SerialOutput::Stdout),
        (Some("sink") | None, _) => Ok(SerialOutput::Sink),
        (Some("syslog"), _) => Ok(SerialOutput::Log),
        (Some(other), _) => {
            Err(format!("type={other}: file, stdout, sink and syslog are supported"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtmgrs_console() {
        let text = "type=file,path=/proc/self/fd/7,input=/proc/self/fd/8,hardware=serial,num=1";
        assert_eq!(
            parse(text).unwrap(),
            Serial::Port(SerialPort {
                number: 1,
                output: SerialOutput::File("/proc/self/fd/7".into()),
                input: Some(SerialInput::File("/proc/self/fd/8".into())),
                console: false,
                earlycon: false,
            })
        );
    }

    #[test]
    fn flags_may_have_values() {
        let Ok(Serial::Port(port)) = parse("type=stdout,stdin=true,console,earlycon=false") else {
            panic!("not a port");
        };
        assert_eq!((port.output, port.input), (SerialOutput::Stdout, Some(SerialInput::Stdin)));
        assert!(port.console && !port.earlycon);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("type=file", "path="),
            ("type=unix,path=/x", "type=unix"),
            ("hardware=debugcon", "debugcon"),
            ("num=5", "num=5"),
            ("num=x", "num=x"),
            ("hardware=virtio-console,num=0", "num=0"),
            ("colour=green", "colour"),
            ("stdin=perhaps", "perhaps"),
            ("stdin,input=/x", "exclude"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
