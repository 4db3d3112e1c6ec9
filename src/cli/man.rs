//! The man page: one page for all verbs, made from the same list as the help.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

/// What the list of verbs doesn't say.
const CLOSING: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
Done.
.TP
\fB1\fR
Failed; the reason is on standard error.
.TP
\fB2\fR
Wrong usage.
.SH FILES
.TP
\fI/etc/watrunk/watrunk.toml\fR
The config file. \fBwatrunk config example\fR prints one with every key, explained.
.TP
\fI/var/lib/watrunk/calls.db\fR
The history of calls (SQLite), unless \fBgateway.state_dir\fR says otherwise.
.SH ENVIRONMENT
.TP
\fBWATRUNK_LOG\fR
What \fBwatrunk run\fR logs to standard error, for example \fBinfo\fR or \fBwatrunk=debug\fR.
.TP
\fBWATRUNK_API\fR, \fBWATRUNK_KEY\fR
Which gateway \fBcall\fR, \fBcalls\fR, \fBhangup\fR, \fBpermissions\fR, \fBnumbers\fR, \fBtrunks\fR,
\fBtrace\fR, \fBrecording\fR, \fBrecordings\fR, \fBaudit\fR and \fBstatus\fR ask, and the key that they show, unless \fB\-\-api\fR and \fB\-\-key\fR say otherwise. If
neither says anything, the config file does: \fBhttp.listen\fR and the first plain admin key.
"#;

/// Writes the page for `command` and everything below it.
pub(super) fn render(mut command: Command, out: &mut dyn Write) -> io::Result<()> {
    // Fills in the full names (`watrunk config example`) and the built-in options.
    command.build();
    let man = Man::new(command.clone());
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    writeln!(out, ".SH COMMANDS")?;
    verbs(&command, out)?;
    out.write_all(CLOSING.as_bytes())?;
    man.render_version_section(out)
}

/// A subsection for each verb that does something; those that only group others are entered.
fn verbs(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        if verb.has_subcommands() {
            verbs(verb, out)?;
            continue;
        }
        let name = verb.get_bin_name().unwrap_or(verb.get_name()).to_owned();
        writeln!(out, ".SS \"{name}\"")?;
        let mut page = Vec::new();
        let man = Man::new(verb.clone());
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        for line in String::from_utf8_lossy(&page).lines() {
            // The verb's headings would end the section; its description needs none.
            match line.strip_prefix(".SH ") {
                Some("DESCRIPTION") => {}
                Some(_) => writeln!(out, ".PP")?,
                None => writeln!(out, "{line}")?,
            }
        }
    }
    Ok(())
}
