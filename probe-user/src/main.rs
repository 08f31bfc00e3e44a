//! probe
use probe_user::kernel::{load::*, snapshot::*};
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let t = std::time::Instant::now();
    let mut p = Probe::load(Options {
        log: true,
        ..Default::default()
    })?;
    eprintln!("load {:?}", t.elapsed());
    p.forward_logs().unwrap();
    p.attach()?;
    p.go_live()?;
    eprintln!("live {:?}", t.elapsed());
    let mut b = Vec::new();
    for detail in [
        Detail {
            histograms: false,
            open_ledgers: true,
        },
        Detail {
            histograms: true,
            open_ledgers: false,
        },
        Detail::default(),
    ] {
        let t = std::time::Instant::now();
        p.read_snapshot(detail, &mut b)?;
        let mut n = 0;
        let mut torn = 0;
        parse(&b, |r| {
            n += 1;
            torn += u32::from(r.torn());
        })?;
        eprintln!("{n} tasks {torn} torn {} bytes {:?}", b.len(), t.elapsed());
    }
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    p.read_snapshot(Detail::default(), &mut b)?;
    parse(&b, |r| {
        let f = &r.record.facts;
        println!(
            "{} {} {} {} st {:x} {:?} {:?}",
            f.pid,
            f.tid,
            f.ppid,
            String::from_utf8_lossy(&f.comm),
            f.state_bits,
            r.record.blocked_on,
            r.ledger.map(|l| (l.state, l.time_ns))
        );
    })?;
    println!("{:?}", p.totals()?);
    Ok(())
}
