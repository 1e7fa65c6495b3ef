// SPDX-License-Identifier: Apache-2.0
//! The driver as patches for the kernel's mailing lists: made from `driver/`, checked by the kernel's own
//! `checkpatch.pl`, applied to a clean tree and built there.

mod binding;
mod format;
mod intree;
mod series;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{bail, Context, Result};

use self::series::Patch;
use crate::fetch::Fetcher;
use crate::kernel::{self, Variant};
use crate::libtest::{Case, Outcome};
use crate::process;
use crate::project::Project;
use crate::report::Suite;
use crate::source;

/// The word that stands for whoever makes the series.
const MAINTAINER: &str = "MAINTAINER";
/// The title of our entry in MAINTAINERS.
const ENTRY: &str = "GENIEZONE HYPERVISOR DRIVER";

/// Makes the series below `target/gzvm/patches`, checks it and, unless it is to be quick, builds it in tree.
///
/// # Errors
///
/// When it cannot be made, or does not pass a check.
pub fn make(project: &Project, quick: bool) -> Result<()> {
    let (work, written) = checked(project)?;
    if !quick {
        let kernel = kernel::build(project, &Fetcher::new(project), Variant::Usual)?;
        intree::build(project, &kernel, &work.tree, &work.repository)?;
    }
    for patch in &written {
        println!("{}", patch.display());
    }
    Ok(())
}

/// What of it takes seconds, as a suite: all but the build.
pub fn suite(project: &Project) -> Suite {
    let started = Instant::now();
    let name = "series for the kernel's lists";
    let case = match checked(project) {
        Ok(_) => Case { name: name.into(), outcome: Outcome::Passed, detail: String::new() },
        Err(error) => Case::failed(name, &format!("{error:#}")),
    };
    let (cases, output) = (vec![case], String::new());
    Suite { name: "patches".to_owned(), cases, output, time: started.elapsed() }
}

fn checked(project: &Project) -> Result<(Work<'_>, Vec<PathBuf>)> {
    let tree = match kernel::users_tree()? {
        Some(tree) => tree,
        None => Fetcher::new(project).kernel_source()?.dir,
    };
    let work = Work::new(project, &tree)?;
    let written = work.series()?;
    work.checkpatch(&written)?;
    work.maintained(&written)?;
    binding::check(project, &tree, &work.repository)?;
    work.applies(&written)?;
    work.mailed(&written)?;
    Ok((work, written))
}

/// Where the series is made: a repository with just those files of the kernel that it edits.
struct Work<'a> {
    project: &'a Project,
    tree: PathBuf,
    repository: PathBuf,
    patches: Vec<Patch>,
    identity: String,
}

impl<'a> Work<'a> {
    fn new(project: &'a Project, tree: &Path) -> Result<Self> {
        let repository = project.out().join("patches/tree");
        for old in [&repository, &project.out().join("patches/git")] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        fs::create_dir_all(&repository)?;
        let path = project.top.join("driver/upstream/series.txt");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let patches = series::parse(&text)?;
        series::build_comes_last(&patches)?;
        // Whose patches they are matters when they are sent.
        let config = |name: &str, nobody: &str| {
            let mut git = Command::new("git");
            git.current_dir(&project.top).args(["config", name]);
            process::output(&mut git).map_or(nobody.to_owned(), |value| value.trim().to_owned())
        };
        let email = config("user.email", "author@example.org");
        let identity = format!("{} <{email}>", config("user.name", "The Author"));
        Ok(Self { project, tree: tree.to_owned(), repository, patches, identity })
    }

    fn git(&self, args: &[&str]) -> Result<String> {
        process::output(&mut self.git_command(args))
    }

    fn git_command(&self, args: &[&str]) -> Command {
        let (name, email) = self.identity.split_once(" <").unwrap_or((&self.identity, ""));
        let email = email.trim_end_matches('>');
        let mut git = Command::new("git");
        // Apart from the files: what the kernel calls itself would show that there is a repository.
        git.env("GIT_DIR", self.project.out().join("patches/git"));
        git.env("GIT_WORK_TREE", &self.repository).current_dir(&self.repository).args(args);
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), name).env(format!("GIT_{who}_EMAIL"), email);
        }
        git
    }

    /// One commit for each patch, then one mail for each commit and the cover letter.
    fn series(&self) -> Result<Vec<PathBuf>> {
        self.git(&["init", "--quiet"])?;
        for edit in self.patches.iter().flat_map(|patch| &patch.edits) {
            let text = fs::read_to_string(self.tree.join(&edit.path))
                .with_context(|| format!("the kernel has no {}", edit.path))?;
            write(&self.repository.join(&edit.path), &text)?;
        }
        self.commit("Linux")?;
        let sources = source::all(&self.project.top)?;
        let files = sources.iter().filter_map(|source| source.path.strip_prefix("driver/"));
        let files: Vec<_> = files.map(str::to_owned).collect();
        let assigned = series::assign(&self.patches, &files)?;
        let wanted: Vec<_> = assigned.iter().flatten().map(|file| (*file).to_owned()).collect();
        let formatted = self.project.out().join("patches/formatted");
        let driver =
            format::copy(&self.project.top.join("driver"), &wanted, &self.tree, &formatted)?;
        for (patch, files) in self.patches.iter().zip(assigned) {
            self.lay(patch, &driver, &files)?;
            let message = format!("{}\n\n{}", patch.subject, patch.message);
            self.commit(&message)?;
        }
        self.mails()
    }

    /// Puts a patch's files, from the copy `driver`, and edits into the tree.
    fn lay(&self, patch: &Patch, driver: &Path, files: &[&str]) -> Result<()> {
        for file in files {
            let Some(home) = series::home(file) else { continue };
            let text = fs::read_to_string(driver.join(file))?;
            write(&self.repository.join(home), &text.replace(MAINTAINER, &self.identity))?;
        }
        for edit in &patch.edits {
            let path = self.repository.join(&edit.path);
            let text = edit.apply(&fs::read_to_string(&path)?)?;
            write(&path, &text.replace(MAINTAINER, &self.identity))?;
        }
        Ok(())
    }

    fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--all", "--force"])?;
        self.git(&["commit", "--quiet", "--signoff", "--message", message])?;
        Ok(())
    }

    fn mails(&self) -> Result<Vec<PathBuf>> {
        let dir = self.project.out().join("patches/series");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let count = format!("-{}", self.patches.len());
        let out = dir.to_string_lossy().into_owned();
        let args = ["format-patch", "--quiet", "--cover-letter", "--no-base", &count, "-o", &out];
        self.git(&args)?;
        let mut mails: Vec<_> =
            fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        mails.sort();
        self.cover(mails.first().context("no cover letter")?)?;
        Ok(mails)
    }

    /// Puts our text into Git's cover letter: subject in the first line, then the body.
    fn cover(&self, mail: &Path) -> Result<()> {
        let ours = fs::read_to_string(self.project.top.join("driver/upstream/cover.txt"))?;
        let (subject, body) = ours.split_once("\n\n").context("cover.txt is one paragraph")?;
        let text = fs::read_to_string(mail)?;
        let text = text.replace("*** SUBJECT HERE ***", subject);
        fs::write(mail, text.replace("*** BLURB HERE ***", body.trim()))?;
        Ok(())
    }

    /// The kernel's own check. That new files want an entry in MAINTAINERS is checked by
    /// [`Work::maintained`]: checkpatch cannot know that an earlier patch has it.
    fn checkpatch(&self, mails: &[PathBuf]) -> Result<()> {
        let mut bad = Vec::new();
        for mail in mails.iter().skip(1) {
            let mut command = Command::new("perl");
            command.arg(self.tree.join("scripts/checkpatch.pl"));
            command.args(["--strict", "--no-summary", "--terse", "--ignore", "FILE_PATH_CHANGES"]);
            command.arg("--root").arg(&self.tree).arg(mail).env("LC_ALL", "C");
            let said = command.output().context("cannot run perl")?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            bad.extend(said.lines().filter(|line| is_complaint(line)).map(str::to_owned));
        }
        if !bad.is_empty() {
            bail!("checkpatch.pl --strict:\n{}", bad.join("\n"));
        }
        eprintln!("patches     checkpatch.pl --strict: nothing in {} patches", mails.len() - 1);
        Ok(())
    }

    /// Every file that the series adds is among those of our entry in MAINTAINERS.
    fn maintained(&self, mails: &[PathBuf]) -> Result<()> {
        let text = fs::read_to_string(self.repository.join("MAINTAINERS"))?;
        let entry: Vec<_> = text
            .lines()
            .skip_while(|line| *line != ENTRY)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.strip_prefix("F:\t"))
            .collect();
        let base = format!("HEAD~{}", mails.len() - 1);
        let added = self.git(&["diff", "--name-only", "--diff-filter=A", &base, "HEAD"])?;
        let lost = unmaintained(&entry, &added);
        if !lost.is_empty() {
            bail!("MAINTAINERS has no line for {}", lost.join(", "));
        }
        Ok(())
    }

    /// The mails apply to the clean tree: Git reads only the files that they touch.
    fn applies(&self, mails: &[PathBuf]) -> Result<()> {
        // The patches build on each other, so they are checked as one.
        let all = self.project.out().join("patches/all.diff");
        let base = format!("HEAD~{}", mails.len() - 1);
        fs::write(&all, self.git(&["diff", &base, "HEAD"])?)?;
        let mut check = Command::new("git");
        check.current_dir(&self.tree).args(["apply", "--check"]).arg(&all);
        process::output(&mut check).context("the series does not apply to the clean tree")?;
        Ok(())
    }

    /// The mails, applied as a maintainer does it, make the tree that they were made from.
    fn mailed(&self, mails: &[PathBuf]) -> Result<()> {
        let dir = self.project.out().join("patches/am");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let path = dir.to_string_lossy().into_owned();
        let base = format!("HEAD~{}", mails.len() - 1);
        self.git(&["worktree", "prune"])?;
        self.git(&["worktree", "add", "--quiet", "--force", "--detach", &path, &base])?;
        let inside = |args: &[&str]| {
            let mut git = self.git_command(args);
            git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").current_dir(&dir);
            git
        };
        let mut am = inside(&["am", "--quiet"]);
        process::output(am.args(mails.iter().skip(1))).context("git am of the mails")?;
        let tree = "HEAD^{tree}";
        if process::output(&mut inside(&["rev-parse", tree]))? != self.git(&["rev-parse", tree])? {
            bail!("the mails make another tree than driver/: {}", dir.display());
        }
        Ok(())
    }
}

fn is_complaint(line: &str) -> bool {
    [": ERROR:", ": WARNING:", ": CHECK:"].iter().any(|what| line.contains(what))
}

fn unmaintained<'a>(entry: &[&str], added: &'a str) -> Vec<&'a str> {
    let covers = |file: &str| {
        entry.iter().any(|line| file == *line || (line.ends_with('/') && file.starts_with(line)))
    };
    added.lines().filter(|file| !covers(file)).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_from_other_lines() {
        assert!(is_complaint("0001-x.patch:12: WARNING: line length"));
        assert!(is_complaint("0001-x.patch:12: CHECK: blank"));
        assert!(!is_complaint("total: 0 errors, 0 warnings, 3 lines checked"));
    }

    /// Who objected to something in the posted versions, or reviewed them.
    const REVIEWERS: [&str; 15] = [
        "AngeloGioacchino Del Regno",
        "Arnd Bergmann",
        "Conor Dooley",
        "Elliot Berman",
        "Eugen Hristev",
        "Hillf Danton, v12",
        "Hillf Danton, v13",
        "Krzysztof Kozlowski, v13",
        "Krzysztof Kozlowski, v1:",
        "Krzysztof Kozlowski, v4",
        "Marc Zyngier, v2",
        "Marc Zyngier, v7",
        "Rob Herring",
        "Simon Horman",
        "Will Deacon",
    ];

    #[test]
    fn the_cover_letter_answers_everybody() {
        let cover = include_str!("../../../../driver/upstream/cover.txt");
        for name in REVIEWERS {
            assert!(cover.contains(name), "{name}");
        }
    }

    #[test]
    fn files_without_a_maintainer_are_named() {
        let entry = ["drivers/virt/geniezone/", "include/uapi/linux/gzvm.h"];
        let added = "drivers/virt/geniezone/Kbuild\ninclude/uapi/linux/gzvm.h\ninclude/x.h\n";
        assert_eq!(unmaintained(&entry, added), ["include/x.h"]);
    }
}
