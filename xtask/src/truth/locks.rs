//! What was waited at locks: `procprobe locks -o json`, and what `futexctn -s` prints.

use anyhow::Result;
use serde::Deserialize;

use super::{
    distribution::Distribution,
    ours::{self, Bucket},
    tools::bucket,
};

/// procprobe's answer.
#[derive(Deserialize)]
pub struct Answer {
    locks: Vec<Lock>,
    not_contention: Vec<Lock>,
}

#[derive(Deserialize)]
struct Lock {
    pid: u32,
    address: String,
    kind: String,
    waits: u64,
    wait_ns_total: u64,
    /// Of what is contended.
    histogram: Option<Vec<Bucket>>,
}

/// What ours says about a lock.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub name: String,
    pub waits: u64,
    pub wait_ns: u64,
    pub distribution: Option<Distribution>,
}

impl Answer {
    pub fn parse(json: &str) -> Result<Self> {
        Ok(serde_json::from_str(json)?)
    }

    /// What it says about an address; of one that it does not know, that nobody waited.
    pub fn at(&self, pid: u32, address: u64) -> Told {
        let address = format!("{address:#x}");
        let mut all = self.locks.iter().chain(&self.not_contention);
        let lock = all.find(|lock| lock.pid == pid && lock.address == address);
        let Some(lock) = lock else {
            return Told {
                name: format!("nothing at {address}"),
                waits: 0,
                wait_ns: 0,
                distribution: None,
            };
        };
        Told {
            name: lock.kind.clone(),
            waits: lock.waits,
            wait_ns: lock.wait_ns_total,
            distribution: lock.histogram.as_deref().map(ours::distribution),
        }
    }
}

/// What futexctn says about a lock.
#[derive(Debug, Default, PartialEq)]
pub struct Waited {
    pub pid: u32,
    pub address: u64,
    pub waits: u64,
    pub wait_ns: u64,
    pub distribution: Distribution,
}

/// What `futexctn -s` prints: `name[12] lock 0x1234 contended 8 times, 50 avg usecs [max: …]`, a heading, and lines such as
/// `4 -> 7 : 12 |***|`.
pub fn futexctn(text: &str) -> Vec<Waited> {
    let mut all: Vec<(Waited, Vec<(u64, u64)>)> = Vec::new();
    for line in text.lines() {
        if let Some(waited) = heading(line) {
            all.push((waited, Vec::new()));
        } else if let (Some(bucket), Some((_, buckets))) = (bucket(line), all.last_mut()) {
            buckets.push(bucket);
        }
    }
    let whole = all.into_iter().map(|(waited, buckets)| Waited {
        distribution: Distribution::new(buckets),
        ..waited
    });
    whole.collect()
}

fn heading(line: &str) -> Option<Waited> {
    let (who, rest) = line.split_once("] lock 0x")?;
    let (_, pid) = who.rsplit_once('[')?;
    let mut words = rest.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let mut numbers = words.filter_map(|word| word.parse::<u64>().ok());
    let (waits, mean_us) = (numbers.next()?, numbers.next()?);
    Some(Waited {
        pid: pid.parse().ok()?,
        address,
        waits,
        wait_ns: waits * mean_us * 1000,
        distribution: Distribution::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As futexctn of libbpf-tools 0.31 prints it.
    const PRINTED: &str = "\n\npt[9813] lock 0x5626447db0e4 contended 8 times, 503781 avg usecs [max: 4003745 usecs, min 3217 usecs]\n     \
                           usecs               : count    distribution\n      2048 -> 4095       : 7        |****|\n   2097152 -> 4194303    : \
                           1        |*****|\n\n\na [b] c[7] lock 0x10 contended 1 times, 2 avg usecs [max: 2 usecs, min 2 usecs]\n";

    #[test]
    fn locks_of_the_other() {
        let all = futexctn(PRINTED);
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].pid, all[0].address, all[0].waits, all[0].wait_ns),
            (9813, 0x5626_447d_b0e4, 8, 8 * 503_781_000)
        );
        assert_eq!(all[0].distribution.count(), 8);
        assert_eq!((all[1].pid, all[1].waits), (7, 1));
    }

    #[test]
    fn locks_of_ours() {
        let json = r#"{"locks":[{"pid":12,"address":"0x10","kind":"mutex","waits":3,"wait_ns_total":9,
            "histogram":[{"le_ns":1024,"count":3}]}],"not_contention":[{"pid":12,"address":"0x20","kind":"barrier",
            "waits":2,"wait_ns_total":5}]}"#;
        let answer = Answer::parse(json).unwrap();
        let mutex = answer.at(12, 16);
        assert_eq!((mutex.name.as_str(), mutex.waits, mutex.wait_ns), ("mutex", 3, 9));
        assert_eq!(mutex.distribution.unwrap().count(), 3);
        assert_eq!(answer.at(12, 32).distribution, None);
        assert_eq!(answer.at(13, 16).waits, 0);
    }
}
