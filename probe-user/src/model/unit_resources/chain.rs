//! What the quotas above several cgroups come to together.
//!
//! A cgroup never gets more than those above it let it have, so the tightest of a chain counts; beside each
//! other, cgroups add up, until one above all of them has less. The same of time throttled, the other way
//! round: of a chain the longest, since it is not known how much of it was at the same time, and what is
//! shown must not be more than there was.

/// A cgroup with a quota.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its number.
    pub id: u64,
    /// Its quota; `None` if it has none any more.
    pub cores: Option<f64>,
    /// Time that it throttled.
    pub throttled_ns: u64,
}

/// What all of them come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// How many CPUs' time they may have together; `None` if one of them has no limit.
    pub cores: Option<f64>,
    /// Time throttled.
    pub throttled_ns: u64,
}

/// Of chains of quotas, each from a cgroup upwards.
pub fn effect(chains: &[&[Step]]) -> Effect {
    let none = Effect {
        cores: None,
        throttled_ns: 0,
    };
    // One of the cgroups itself has nothing above that limits it.
    let is_free = chains.is_empty() || chains.iter().any(|chain| chain.is_empty());
    let mut total = Effect {
        cores: (!is_free).then_some(0.0),
        ..none
    };
    let mut ids: Vec<u64> = chains.iter().filter_map(|chain| Some(chain.last()?.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let one = below(chains, id);
        total.throttled_ns += one.throttled_ns;
        total.cores = total.cores.zip(one.cores).map(|(sum, cores)| sum + cores);
    }
    total
}

/// Of those chains whose outermost quota is this one.
fn below(chains: &[&[Step]], id: u64) -> Effect {
    let mut inner = Vec::new();
    let mut own = None;
    let mut throttled_ns = 0;
    for chain in chains {
        let Some((step, rest)) = chain.split_last().filter(|(step, _)| step.id == id) else {
            continue;
        };
        own = step.cores;
        throttled_ns = throttled_ns.max(step.throttled_ns);
        inner.push(rest);
    }
    let inner = effect(&inner);
    Effect {
        cores: match (own, inner.cores) {
            (Some(own), Some(inner)) => Some(own.min(inner)),
            (one, other) => one.or(other),
        },
        throttled_ns: throttled_ns.max(inner.throttled_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: u64, cores: f64, throttled_ns: u64) -> Step {
        Step {
            id,
            cores: Some(cores),
            throttled_ns,
        }
    }

    fn of(chains: &[&[Step]]) -> (Option<f64>, u64) {
        let effect = effect(chains);
        (effect.cores, effect.throttled_ns)
    }

    #[test]
    fn the_tightest_of_a_chain_counts_and_neighbours_add_up() {
        let slice = step(1, 2.0, 5);
        assert_eq!(of(&[]), (None, 0));
        assert_eq!(of(&[&[]]), (None, 0));
        assert_eq!(of(&[&[step(2, 4.0, 1), slice]]), (Some(2.0), 5), "the slice's");
        assert_eq!(of(&[&[step(2, 0.5, 9), slice]]), (Some(0.5), 9));
        let (one, other) = ([step(2, 0.5, 1), slice], [step(3, 1.0, 2), slice]);
        assert_eq!(of(&[&one, &other]), (Some(1.5), 5));
        let third = [step(4, 1.0, 4), slice];
        assert_eq!(of(&[&one, &other, &third]), (Some(2.0), 7), "the slice's again");
        assert_eq!(
            of(&[&one, &[slice]]),
            (Some(2.0), 5),
            "one has the slice to itself"
        );
        assert_eq!(of(&[&one, &[]]), (None, 5), "one has no limit at all");
        let gone = Step { cores: None, ..slice };
        assert_eq!(of(&[&[gone]]), (None, 5), "a quota that was taken away");
        assert_eq!(of(&[&[step(2, 0.5, 1)], &[step(3, 1.0, 2)]]), (Some(1.5), 3));
    }
}
