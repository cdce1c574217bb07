//! The folder and its files. Everything here blocks.
//!
//! Guarantees that what [`Disk::append`] reports as durable is on the disk with the names that lead to it, that a file never holds half a pair in front of another one, and that no existing file is
//! written over. Owns the lock, names, rotation, the bound on open files, and the repair of what an end without warning left. Knows no segments and waits for nothing but the disk.
//!
//! A file is written to as `<start>-<seq>.ndjson.part` and renamed to `<start>-<seq>.ndjson` when it is full or drover stops. Every write goes to the end of what is settled: what a failed one left behind
//! is cut off before the next (also after a failed `fsync`, since the system may have dropped those pages and would call a second one a success).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fail::fail_point;
use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use tracing::{info, warn};

use super::lines::{Pairs, Step};
use super::{OPEN_SUFFIX, SUFFIX};

/// The lock's name; no index begins with a dot.
const LOCK: &str = ".lock";

/// Sizes that only tests change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A file is full at this size, in bytes.
    pub(super) rotate_bytes: u64,
    /// Files that are open at once.
    pub(super) open_files: usize,
}

/// Something that the disk refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub(super) struct DiskError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    pub(super) source: io::Error,
}

impl DiskError {
    fn new(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { doing, path: path.to_owned(), source }
    }

    /// Whether it concerns the folder of one index: others can be written to.
    pub(super) fn is_of_the_index(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, PermissionDenied};
        matches!(self.source.kind(), AlreadyExists | InvalidFilename | IsADirectory | NotADirectory | PermissionDenied)
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// It cannot be written to.
    #[error("cannot write to the folder {dir} of sink.file; let drover's user create and write it, or name another folder")]
    Unwritable {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process writes there.
    #[error("another drover writes to the folder {dir} of sink.file; stop it, or name another folder")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
}

/// How far an append came.
#[derive(Debug)]
pub(super) struct Appended {
    /// So many pieces are durable, from the first.
    pub(super) durable: usize,
    /// Why not all of them are.
    pub(super) error: Option<DiskError>,
}

/// The files of one index.
#[derive(Debug, Default)]
struct IndexFiles {
    /// The number of the last file.
    last_seq: u64,
    /// The one that is written to.
    part: Option<PartFile>,
}

#[derive(Debug)]
struct PartFile {
    path: PathBuf,
    /// Closed when too many others are used.
    file: Option<File>,
    /// The bytes that are durable.
    settled: u64,
    /// Something else may lie behind them.
    dirty: bool,
    last_used: u64,
}

/// The folder, locked for this process.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    limits: Limits,
    /// Of the start, as file names have it.
    start: String,
    indices: HashMap<String, IndexFiles>,
    uses: u64,
    _lock: File,
}

impl Disk {
    /// Locks the folder, which is made if it is not there, and repairs and closes the files that an end without warning left open.
    pub(super) fn open(dir: &Path, limits: Limits, now: Timestamp) -> Result<Self, SetupError> {
        let unwritable = |source: io::Error| SetupError::Unwritable { dir: dir.to_owned(), source: source.into() };
        fs::create_dir_all(dir).map_err(unwritable)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SetupError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        try_to_write(dir).map_err(unwritable)?;
        repair_all(dir).map_err(|error| SetupError::Unwritable { dir: dir.to_owned(), source: error.into() })?;
        Ok(Self { dir: dir.to_owned(), limits, start: file_time(now), indices: HashMap::new(), uses: 0, _lock: lock })
    }

    /// Appends pieces, each a number of whole pairs, to the files of one index, and makes them durable.
    pub(super) fn append(&mut self, index: &str, pieces: &[Bytes]) -> Appended {
        let mut durable = 0;
        while let Some(rest) = pieces.get(durable..).filter(|rest| !rest.is_empty()) {
            match self.append_to_one_file(index, rest) {
                Ok(count) => durable += count,
                Err(error) => return Appended { durable, error: Some(error) },
            }
        }
        Appended { durable, error: None }
    }

    /// Finishes every file. What fails is logged: the next start does it.
    pub(super) fn close(&mut self) {
        let names: Vec<String> = self.indices.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.finish(&name) {
                warn!(error = %crate::causes::chain(&error), "a file could not be finished; the next start does that");
            }
        }
    }

    /// Appends as many of the pieces as fit one file, at least one; says how many.
    fn append_to_one_file(&mut self, index: &str, pieces: &[Bytes]) -> Result<usize, DiskError> {
        let rotate_bytes = self.limits.rotate_bytes;
        let first = pieces.first().map_or(0, Bytes::len) as u64;
        let is_full = |part: &PartFile| part.settled > 0 && part.settled + first > rotate_bytes;
        if self.indices.get(index).and_then(|files| files.part.as_ref()).is_some_and(is_full) {
            self.finish(index)?;
        }
        let (part, mut file) = self.writable(index)?;
        part.dirty = true;
        let mut length = part.settled;
        let mut count = 0;
        for piece in pieces {
            let after = length + piece.len() as u64;
            if length > 0 && after > rotate_bytes {
                break;
            }
            write(&mut file, &part.path, piece).map_err(DiskError::new("write", &part.path))?;
            length = after;
            count += 1;
        }
        file.sync_data().map_err(DiskError::new("flush", &part.path))?;
        let names = file.metadata().map_err(DiskError::new("look at", &part.path))?.nlink();
        if names == 0 {
            // Somebody deleted it while it was written to; what was settled in it is theirs, what is new goes to another file.
            let path = part.path.clone();
            self.forget(index);
            return Err(DiskError { doing: "find", path, source: io::ErrorKind::NotFound.into() });
        }
        part.settled = length;
        part.dirty = false;
        part.file = Some(file);
        Ok(count)
    }

    /// The file of an index, which ends with what is settled. Its handle is taken out: after an error it is not used again.
    fn writable(&mut self, index: &str) -> Result<(&mut PartFile, File), DiskError> {
        self.uses += 1;
        let has_handle = self.indices.get(index).and_then(|files| files.part.as_ref()).is_some_and(|part| part.file.is_some());
        if !has_handle {
            self.make_room();
        }
        let files = self.indices.entry(index.to_owned()).or_default();
        let (mut part, handle) = match files.part.take() {
            Some(mut part) => {
                let handle = part.file.take().filter(|_| !part.dirty);
                (part, handle)
            }
            None => {
                let (part, file) = create(&self.dir, index, &self.start, &mut files.last_seq)?;
                (part, Some(file))
            }
        };
        let file = match handle.map_or_else(|| reopen(&mut part), |file| Ok(Some(file))) {
            Ok(Some(file)) => file,
            Ok(None) => {
                // Moved away, or deleted, while it was closed.
                warn!(path = %part.path.display(), "a file that was written to is gone; going on in a new one");
                let (new, file) = create(&self.dir, index, &self.start, &mut files.last_seq)?;
                part = new;
                file
            }
            Err(error) => {
                files.part = Some(part);
                return Err(error);
            }
        };
        part.last_used = self.uses;
        Ok((files.part.insert(part), file))
    }

    /// Closes the file that was not used for the longest time, if as many are open as may be. It stays the file of its index.
    fn make_room(&mut self) {
        let mut open: Vec<&mut PartFile> =
            self.indices.values_mut().filter_map(|files| files.part.as_mut()).filter(|part| part.file.is_some()).collect();
        if open.len() < self.limits.open_files {
            return;
        }
        if let Some(oldest) = open.iter_mut().min_by_key(|part| part.last_used) {
            oldest.file = None;
        }
    }

    /// Gives the file of an index its final name.
    fn finish(&mut self, index: &str) -> Result<(), DiskError> {
        let Some(part) = self.indices.get_mut(index).and_then(|files| files.part.as_mut()) else { return Ok(()) };
        part.file = None;
        match finish_file(&part.path, part.settled) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                warn!(path = %part.path.display(), "a file that was written to is gone");
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        self.forget(index);
        Ok(())
    }

    fn forget(&mut self, index: &str) {
        if let Some(files) = self.indices.get_mut(index) {
            files.part = None;
        }
    }
}

/// Whether a folder, or the nearest one above it that is there, can be written to.
pub(super) fn probe(dir: &Path) -> io::Result<()> {
    let mut nearest = dir;
    while !nearest.try_exists()? {
        nearest = match nearest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    try_to_write(nearest)
}

/// Makes a file and removes it.
fn try_to_write(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".drover-probe-{}", std::process::id()));
    File::create(&path)?;
    fs::remove_file(&path)
}

/// Makes the next file of an index, durable with its name.
fn create(dir: &Path, index: &str, start: &str, last_seq: &mut u64) -> Result<(PartFile, File), DiskError> {
    let folder = dir.join(index);
    match fs::create_dir(&folder) {
        Ok(()) => sync_dir(dir)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        // Somebody deleted the whole folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(&folder).map_err(DiskError::new("make the folder", &folder))?;
            sync_dir(dir)?;
        }
        Err(error) => return Err(DiskError::new("make the folder", &folder)(error)),
    }
    loop {
        *last_seq += 1;
        let name = format!("{start}-{last_seq:08}{SUFFIX}");
        let path = folder.join(format!("{name}{OPEN_SUFFIX}"));
        let is_taken = folder.join(&name).try_exists().map_err(DiskError::new("look at", &folder))?;
        if is_taken {
            continue;
        }
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                sync_dir(&folder)?;
                return Ok((PartFile { path, file: None, settled: 0, dirty: false, last_used: 0 }, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DiskError::new("make", &path)(error)),
        }
    }
}

/// Opens a file again behind what is settled, and cuts off what lies there; `None` when it is gone.
fn reopen(part: &mut PartFile) -> Result<Option<File>, DiskError> {
    let mut file = match OpenOptions::new().write(true).open(&part.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::new("open", &part.path)(error)),
    };
    file.set_len(part.settled).map_err(DiskError::new("cut", &part.path))?;
    file.seek(SeekFrom::Start(part.settled)).map_err(DiskError::new("open", &part.path))?;
    part.dirty = false;
    Ok(Some(file))
}

/// Writes all of `bytes`. A failpoint's argument is a part of the path; it leaves half of the bytes behind, as a full disk and a crash do.
fn write(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write_half = |file: &mut File, text: Option<String>| -> io::Result<bool> {
        let is_meant = text.is_none_or(|text| path.to_string_lossy().contains(&text));
        let (half, _) = bytes.split_at(bytes.len() / 2);
        file.write_all(if is_meant { half } else { bytes })?;
        Ok(is_meant)
    };
    fail_point!("file_sink_write", |text| if write_half(file, text)? { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) });
    fail_point!("file_sink_panic", |text| if write_half(file, text)? { panic!("told to by a failpoint") } else { Ok(()) });
    let _ = write_half;
    file.write_all(bytes)
}

/// Cuts a file to what is settled and gives it its final name; removes it when nothing is.
fn finish_file(path: &Path, settled: u64) -> Result<(), DiskError> {
    let file = OpenOptions::new().write(true).open(path).map_err(DiskError::new("open", path))?;
    let length = file.metadata().map_err(DiskError::new("look at", path))?.len();
    if length > settled {
        file.set_len(settled).map_err(DiskError::new("cut", path))?;
        file.sync_all().map_err(DiskError::new("flush", path))?;
    }
    drop(file);
    if settled == 0 {
        fs::remove_file(path).map_err(DiskError::new("remove", path))?;
    } else {
        fs::rename(path, finished(path)).map_err(DiskError::new("rename", path))?;
    }
    match path.parent() {
        Some(folder) => sync_dir(folder),
        None => Ok(()),
    }
}

/// The final name of a file that is written to; one that no other file has.
fn finished(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(OPEN_SUFFIX).unwrap_or(&name);
    let mut target = path.with_file_name(stem);
    let mut again = 1;
    while target.exists() {
        again += 1;
        target = path.with_file_name(format!("{}-{again}{SUFFIX}", stem.strip_suffix(SUFFIX).unwrap_or(stem)));
    }
    target
}

fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(DiskError::new("flush the folder", dir))
}

/// Cuts every file that is still named as open to its whole pairs, and closes it. Only what was not settled can be torn: it is read from Kafka again.
fn repair_all(dir: &Path) -> Result<(), DiskError> {
    for folder in entries(dir)? {
        if !folder.is_dir() {
            continue;
        }
        for path in entries(&folder)? {
            if is_ours(&path) && path.is_file() {
                repair(&path)?;
            }
        }
    }
    Ok(())
}

/// Whether this is the name of a file that we write to: the folder may hold others, which are not ours to cut.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(OPEN_SUFFIX).and_then(|name| name.strip_suffix(SUFFIX));
    let Some((start, seq)) = stem.and_then(|stem| stem.split_once('-')) else { return false };
    let digits = |text: &str, least: usize| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = start.strip_suffix('Z').and_then(|time| time.split_once('T')).is_some_and(|(date, time)| digits(date, 8) && digits(time, 6));
    is_time && digits(seq, 8)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let listed: io::Result<Vec<PathBuf>> = fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    listed.map_err(DiskError::new("list", dir))
}

fn repair(path: &Path) -> Result<(), DiskError> {
    let file = File::open(path).map_err(DiskError::new("open", path))?;
    let length = file.metadata().map_err(DiskError::new("look at", path))?.len();
    let mut pairs = Pairs::new(BufReader::with_capacity(1 << 20, file));
    let mut pair = Vec::new();
    while pairs.next(&mut pair).map_err(DiskError::new("read", path))? == Step::Pair {
        pair.clear();
    }
    let whole = pairs.offset();
    finish_file(path, whole)?;
    let cut = length.saturating_sub(whole);
    if cut > 0 {
        warn!(path = %path.display(), bytes = cut, "cut off a torn end of what an end without warning left; those records are read again");
    } else {
        info!(path = %path.display(), "closed a file that an end without warning left open");
    }
    Ok(())
}

/// A time in UTC as part of a file name: sortable, legal everywhere.
fn file_time(time: Timestamp) -> String {
    strtime::format("%Y%m%dT%H%M%SZ", &time.to_zoned(TimeZone::UTC)).unwrap_or_else(|_| time.as_second().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: Limits = Limits { rotate_bytes: 1 << 20, open_files: 8 };

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().expect("a time")
    }

    fn pair(id: u32) -> Bytes {
        Bytes::from(format!("{{\"index\":{{\"_index\":\"a\",\"_id\":\"{id}\"}}}}\n{{\"n\":{id}}}\n"))
    }

    fn pairs(ids: std::ops::Range<u32>) -> Vec<Bytes> {
        ids.map(pair).collect()
    }

    fn append(disk: &mut Disk, index: &str, ids: std::ops::Range<u32>) {
        let count = ids.len();
        let appended = disk.append(index, &pairs(ids));
        assert!(appended.error.is_none() && appended.durable == count, "{appended:?}");
    }

    /// Names and contents of an index's files, in order.
    fn files(dir: &Path, index: &str) -> Vec<(String, String)> {
        let mut paths = entries(&dir.join(index)).expect("a folder");
        paths.sort();
        let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("text"))).collect()
    }

    fn text(ids: std::ops::Range<u32>) -> String {
        String::from_utf8(pairs(ids).concat()).expect("UTF-8")
    }

    #[test]
    fn a_file_has_its_final_name_only_when_it_is_finished() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(dir.path(), BIG, now()).expect("a folder");
        append(&mut disk, "a", 0..3);
        assert_eq!(files(dir.path(), "a"), [("20260131T120000Z-00000001.ndjson.part".to_owned(), text(0..3))]);
        disk.close();
        assert_eq!(files(dir.path(), "a"), [("20260131T120000Z-00000001.ndjson".to_owned(), text(0..3))]);
    }

    #[test]
    fn a_second_start_in_the_same_second_writes_over_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        for round in 0..3 {
            let mut disk = Disk::open(dir.path(), BIG, now()).expect("a folder");
            append(&mut disk, "a", round..round + 1);
            disk.close();
        }
        let all: Vec<String> = files(dir.path(), "a").into_iter().map(|(_, content)| content).collect();
        assert_eq!(all, [text(0..1), text(1..2), text(2..3)]);
    }

    #[test]
    fn a_full_file_is_followed_by_the_next() {
        let dir = tempfile::tempdir().expect("a folder");
        let limits = Limits { rotate_bytes: pair(0).len() as u64 * 2, open_files: 8 };
        let mut disk = Disk::open(dir.path(), limits, now()).expect("a folder");
        append(&mut disk, "a", 0..5);
        append(&mut disk, "a", 5..6);
        let found = files(dir.path(), "a");
        assert_eq!(found.iter().map(|(_, content)| content.clone()).collect::<Vec<_>>(), [text(0..2), text(2..4), text(4..6)]);
        assert!(found[1].0.ends_with("-00000002.ndjson") && found[2].0.ends_with("-00000003.ndjson.part"), "{found:?}");
    }

    #[test]
    fn a_torn_tail_is_cut_at_the_next_start() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(dir.path(), BIG, now()).expect("a folder");
        append(&mut disk, "a", 0..3);
        append(&mut disk, "b", 0..1);
        drop(disk);
        let torn = dir.path().join("a/20260131T120000Z-00000001.ndjson.part");
        OpenOptions::new().append(true).open(&torn).expect("it").write_all(&pair(3)[..20]).expect("room");
        let empty = dir.path().join("b/20260131T120000Z-00000002.ndjson.part");
        fs::write(&empty, "{\"index\"").expect("a file");
        let foreign = ["film.part", "notes.ndjson.part", "2026-01.ndjson.part", "20260131T120000Z-0000000x.ndjson.part"];
        fs::create_dir(dir.path().join("foreign")).expect("a folder");
        foreign.iter().for_each(|name| fs::write(dir.path().join("foreign").join(name), "not ours").expect("a file"));
        let mut disk = Disk::open(dir.path(), BIG, now()).expect("a folder");
        assert_eq!(files(dir.path(), "a"), [("20260131T120000Z-00000001.ndjson".to_owned(), text(0..3))]);
        assert_eq!(files(dir.path(), "b"), [("20260131T120000Z-00000001.ndjson".to_owned(), text(0..1))]);
        let kept = files(dir.path(), "foreign");
        assert!(
            kept.len() == foreign.len() && kept.iter().all(|(name, content)| foreign.contains(&name.as_str()) && content == "not ours"),
            "{kept:?}"
        );
        append(&mut disk, "a", 3..4);
        assert_eq!(files(dir.path(), "a").last(), Some(&("20260131T120000Z-00000002.ndjson.part".to_owned(), text(3..4))));
    }

    #[test]
    fn more_indices_than_open_files_go_on_in_their_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(dir.path(), Limits { open_files: 2, ..BIG }, now()).expect("a folder");
        for round in 0..3 {
            for index in ["a", "b", "c", "d"] {
                append(&mut disk, index, round..round + 1);
                let open = disk.indices.values().filter_map(|files| files.part.as_ref()).filter(|part| part.file.is_some()).count();
                assert!(open <= 2, "{open} files are open");
            }
        }
        for index in ["a", "b", "c", "d"] {
            assert_eq!(files(dir.path(), index).into_iter().map(|(_, content)| content).collect::<Vec<_>>(), [text(0..3)]);
        }
    }

    #[test]
    fn a_second_process_on_the_folder_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Disk::open(dir.path(), BIG, now()).expect("a folder");
        let refused = Disk::open(dir.path(), BIG, now()).expect_err("locked");
        assert!(matches!(refused, SetupError::InUse { .. }) && refused.to_string().contains("name another folder"), "{refused}");
        drop(first);
        Disk::open(dir.path(), BIG, now()).expect("free again");
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out");
        fs::write(&path, "").expect("a file");
        let refused = Disk::open(&path, BIG, now()).expect_err("no folder");
        assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
        assert!(probe(&path).is_err() && probe(&path.join("below")).is_err());
        assert!(probe(&dir.path().join("not/there/yet")).is_ok());
        assert_eq!(entries(dir.path()).expect("a folder").len(), 1, "a probe left something behind");
    }

    #[test]
    fn a_file_in_the_place_of_an_index_stops_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(dir.path(), BIG, now()).expect("a folder");
        fs::write(dir.path().join("a"), "").expect("a file");
        let appended = disk.append("a", &pairs(0..1));
        assert!(appended.durable == 0 && appended.error.expect("an error").is_of_the_index());
        append(&mut disk, "b", 0..1);
        fs::remove_file(dir.path().join("a")).expect("it");
        append(&mut disk, "a", 0..1);
    }

    #[test]
    fn what_is_written_after_a_file_was_deleted_is_not_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(dir.path(), BIG, now()).expect("a folder");
        append(&mut disk, "a", 0..1);
        fs::remove_dir_all(dir.path().join("a")).expect("it");
        let appended = disk.append("a", &pairs(1..2));
        assert!(appended.durable == 0 && !appended.error.expect("an error").is_of_the_index());
        append(&mut disk, "a", 1..2);
        assert_eq!(files(dir.path(), "a").into_iter().map(|(_, content)| content).collect::<Vec<_>>(), [text(1..2)]);
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn a_full_disk_leaves_no_half_pair() {
        let _scenario = fail::FailScenario::setup();
        let dir = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(dir.path(), BIG, now()).expect("a folder");
        append(&mut disk, "full", 0..2);
        // Other tests write meanwhile, so the failpoint is bound to this folder, and counts nothing.
        fail::cfg("file_sink_write", &format!("return({})", dir.path().display())).expect("a failpoint");
        for _ in 0..2 {
            let appended = disk.append("full", &pairs(2..4));
            assert!(appended.durable == 0 && !appended.error.expect("an error").is_of_the_index());
        }
        fail::remove("file_sink_write");
        append(&mut disk, "full", 2..4);
        assert_eq!(files(dir.path(), "full").into_iter().map(|(_, content)| content).collect::<Vec<_>>(), [text(0..4)]);
        fail::cfg("file_sink_write", &format!("return({})", dir.path().display())).expect("a failpoint");
        assert!(disk.append("full", &pairs(4..6)).error.is_some());
        disk.close();
        assert_eq!(files(dir.path(), "full").into_iter().map(|(_, content)| content).collect::<Vec<_>>(), [text(0..4)]);
    }
}
