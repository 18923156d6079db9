//! Runs a target: first its corpus as it is, then inputs made from it. In CI a fixed number of cases from a fixed seed; with
//! `PANTHEONFS_FUZZ_SECONDS` from fresh seeds for that long (`scripts/fuzz`). An input that fails is made small and saved
//! in the corpus, where every later run begins with it.

use parking_lot::{Mutex, MutexGuard};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestCaseResult, TestError, TestRunner};

use super::memory::peak_of;
use super::mutate::inputs;

/// What is fuzzed.
pub struct Target {
    /// Also the name of its directory in `tests/data/corpus`.
    pub name: &'static str,
    /// Cases where nobody says for how long.
    pub cases: u32,
    /// Repairs checksums, so that damage gets past them.
    pub seal: fn(Vec<u8>) -> Vec<u8>,
    /// Holds whatever comes, or says what does not.
    pub check: fn(&[u8]) -> Result<(), String>,
    /// Bytes of memory that an input of this length may take at the peak.
    pub budget: fn(usize) -> usize,
}

/// One input may take this long; what takes longer hangs.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// Cases between two looks at the clock.
const BATCH: u32 = 64;

static TURN: Mutex<()> = Mutex::new(());
static UNDER_WAY: Mutex<Option<(Instant, &'static str, Vec<u8>)>> = Mutex::new(None);

/// Memory is counted for the whole process, so one target runs at a time.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    TURN.lock()
}

fn under_way() -> MutexGuard<'static, Option<(Instant, &'static str, Vec<u8>)>> {
    UNDER_WAY.lock()
}

pub fn corpus_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus").join(name)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(corpus_dir(name)).expect("a corpus").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a sample")).collect()
}

fn save(name: &str, input: &[u8]) -> PathBuf {
    let path = corpus_dir(name).join(format!("found-{:08x}", crc32fast::hash(input)));
    fs::write(&path, input).expect("saved");
    path
}

/// A hang is a finding, too: nobody would ever hear of the input that caused it.
fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            if let Some((_, name, input)) = under_way().as_ref().filter(|(since, ..)| since.elapsed() > CASE_LIMIT) {
                eprintln!("fuzz: {name}: an input hangs; saved as {}", save(name, input).display());
                std::process::exit(101);
            }
        }
    });
}

impl Target {
    fn one(&self, input: &[u8]) -> TestCaseResult {
        *under_way() = Some((Instant::now(), self.name, input.to_vec()));
        let (outcome, peak) = peak_of(|| (self.check)(input));
        *under_way() = None;
        outcome.map_err(TestCaseError::fail)?;
        let budget = (self.budget)(input.len());
        if peak > budget {
            return Err(TestCaseError::fail(format!("{peak} bytes of memory for {} bytes", input.len())));
        }
        Ok(())
    }

    pub fn run(&self) {
        let _turn = one_at_a_time();
        watch();
        let corpus = corpus(self.name);
        assert!(!corpus.is_empty(), "{}: the corpus is empty", self.name);
        for (number, sample) in corpus.iter().enumerate() {
            self.one(sample).unwrap_or_else(|error| panic!("{}: sample {number}: {error}", self.name));
        }
        let seconds = std::env::var("PANTHEONFS_FUZZ_SECONDS").ok().and_then(|text| text.parse::<f64>().ok());
        let began = Instant::now();
        let limit = seconds.map(Duration::from_secs_f64);
        let (mut cases, mut seed) = (0_u64, 0_u64);
        while limit.map_or(cases < u64::from(self.cases), |limit| began.elapsed() < limit) {
            seed += 1;
            let rng_seed = if limit.is_some() { RngSeed::Random } else { RngSeed::Fixed(seed) };
            let config = Config {
                cases: BATCH,
                failure_persistence: None,
                max_shrink_time: 20_000,
                max_shrink_iters: 20_000,
                rng_seed,
                ..Config::default()
            };
            let found = TestRunner::new(config).run(&inputs(corpus.clone(), self.seal), |input| self.one(&input));
            match found {
                Ok(()) => cases += u64::from(BATCH),
                Err(TestError::Fail(why, input)) => {
                    let place = save(self.name, &input);
                    panic!("fuzz: {}: {why}; saved as {}", self.name, place.display());
                }
                Err(error) => panic!("fuzz: {}: {error}", self.name),
            }
        }
        let took = began.elapsed().as_secs_f64();
        eprintln!("survived: {cases} inputs of {} in {took:.0} s", self.name);
    }
}
