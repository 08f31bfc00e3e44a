//! Answers about which it is known what is wrong with them.

use super::*;
use crate::accuracy::corpus::answer::Said;

fn truth(lines: &[&str]) -> Truth {
    let mut truth = Truth::default();
    for line in lines {
        truth.read(line).unwrap();
    }
    truth
}

fn answer(locks: &str, idle: &str, deadlocks: &str, stalls: &str) -> Answer {
    let json = format!(
        r#"{{"locks":[{locks}],"not_contention":[{idle}],"deadlocks":[{deadlocks}],"stalls":[{stalls}]}}"#
    );
    Said::read(&json).unwrap().answer
}

fn lock(kind: &str, holder: &str) -> String {
    format!(r#"{{"pid":5,"address":"0x10","kind":"{kind}","holder":{holder}}}"#)
}

fn look(truth: &Truth, answer: &Answer) -> Judgement {
    judge(truth, answer, &HashSet::from([5, 6]))
}

#[test]
fn a_contended_mutex_with_its_holder() {
    let truth = truth(&["object mutex 0x10 40 contended", "expect none"]);
    let holder = r#"{"pid":6,"tid":60,"comm":"holder","evidence":"owner"}"#;
    let right = look(&truth, &answer(&lock("mutex", holder), "", "", ""));
    assert!(right.is_right(), "{right:?}");
    assert_eq!(right.contended, [true]);

    let another = holder.replace("holder", "xsleeper");
    let wrong = look(&truth, &answer(&lock("mutex", &another), "", "", ""));
    assert!(
        wrong.false_words.contains("held by xsleeper (owner)"),
        "{wrong:?}"
    );

    let stranger = holder.replace(":6,", ":1,");
    let wrong = look(&truth, &answer(&lock("mutex", &stranger), "", "", ""));
    assert_eq!(wrong.false_words.len(), 1);
}

#[test]
fn what_is_not_seen_is_missed() {
    let truth = truth(&["object rwlock 0x10 40 contended", "expect none"]);
    let nothing = look(&truth, &answer("", "", "", ""));
    assert_eq!(nothing.contended, [false]);
    assert_eq!(nothing.kinds, [("rwlock".into(), NOTHING.into(), false)]);
    let other = look(&truth, &answer("", &lock("parker", "null"), "", ""));
    assert_eq!(other.contended, [false]);
    assert!(other.missed.contains("parker told of a rwlock"));
}

#[test]
fn an_idle_pool_is_no_contention() {
    let truth = truth(&["object condvar 0 0 idle", "expect none"]);
    let right = look(&truth, &answer("", &lock("condvar", "null"), "", ""));
    assert!(right.is_right() && right.idle == [false]);
    let wrong = look(&truth, &answer(&lock("condvar", "null"), "", "", ""));
    assert_eq!(wrong.idle, [true]);
    let stall = r#"{"pid":5,"threads":[{"tid":50,"comm":"worker"}]}"#;
    let wrong = look(&truth, &answer("", &lock("condvar", "null"), "", stall));
    assert!(wrong.false_words.contains("a stall"));
}

const CYCLE: &str = r#"{"kind":"cycle","threads":[{"pid":5,"tid":50,"comm":"dcross"},
    {"pid":5,"tid":51,"comm":"dcross"}],"dead_owner":null}"#;

#[test]
fn a_deadlock_that_is_one() {
    let truth = truth(&["object mutex 0x10 40 either", "expect deadlock"]);
    let right = look(&truth, &answer("", "", CYCLE, ""));
    assert!(right.is_right() && right.told == Some(true), "{right:?}");
    let stall = r#"{"pid":5,"threads":[{"tid":50,"comm":"dcross"}]}"#;
    let twice = look(&truth, &answer("", "", CYCLE, stall));
    assert_eq!(twice.false_words.len(), 1);
    let instead = look(&truth, &answer("", "", "", stall));
    assert_eq!(instead.told, Some(false));
    assert!(instead.missed.contains("deadlock not told, but a stall"));
    let elsewhere = CYCLE.replace(":5,", ":9,");
    assert_eq!(look(&truth, &answer("", "", &elsewhere, "")).told, Some(false));
}

#[test]
fn a_deadlock_that_is_none() {
    for expected in ["none", "maybe"] {
        let truth = truth(&[&format!("expect {expected}")]);
        let wrong = look(&truth, &answer("", "", CYCLE, ""));
        assert!(wrong.false_words.contains("deadlock (cycle)"), "{wrong:?}");
        assert_eq!(wrong.told, None);
    }
}

#[test]
fn the_dead_have_to_be_dead() {
    let dead = r#"{"kind":"dead_owner","threads":[{"pid":5,"tid":50,"comm":"waiter"}],"dead_owner":7}"#;
    let right = truth(&["expect deadlock", "dead 7"]);
    assert!(look(&right, &answer("", "", dead, "")).is_right());
    assert!(!look(&right, &answer("", "", CYCLE, "")).is_right());
    let forked = truth(&["expect stall"]);
    let wrong = look(&forked, &answer("", "", dead, ""));
    assert_eq!(wrong.told, Some(true));
    assert_eq!(wrong.false_words.len(), 1);
    let parents = r#""dead_owner":7,"forked_from":{"pid":5,"tid":70,"comm":"holder"}"#;
    let dead = dead.replace(r#""dead_owner":7"#, parents);
    assert!(look(&forked, &answer("", "", &dead, "")).is_right());
    assert!(!look(&forked, &answer("", "", &dead.replace("holder", "xmain"), "")).is_right());
    assert!(!look(&right, &answer("", "", &dead, "")).is_right());
}
