//! Contenders in turns, and the ratio of the second to the first.

/// The middle one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for one.
pub(crate) type Run<'a> = Box<dyn FnMut() -> f64 + 'a>;

struct Contender<'a> {
    name: &'a str,
    run: Run<'a>,
    blocks: Vec<f64>,
}

/// Runs the contenders in turns. The first is the floor; `promise` is of the second, as a multiple of the floor's time.
pub(crate) fn compare(title: &str, blocks: usize, promise: f64, contenders: Vec<(&str, Run<'_>)>) {
    let mut contenders: Vec<Contender<'_>> = contenders
        .into_iter()
        .map(|(name, run)| Contender {
            name,
            run,
            blocks: Vec::new(),
        })
        .collect();
    for block in 0..blocks {
        let mut turn: Vec<_> = contenders.iter_mut().collect();
        if block % 2 == 1 {
            turn.reverse();
        }
        for contender in turn {
            let time = (contender.run)();
            contender.blocks.push(time);
        }
    }
    println!("\n{title}, ns, {blocks} blocks");
    for contender in &contenders {
        let mut sorted = contender.blocks.clone();
        let middle = median(&mut sorted);
        println!(
            "  {:<40} median {middle:9.1}   min {:9.1}   max {:9.1}",
            contender.name,
            sorted[0],
            sorted[sorted.len() - 1]
        );
    }
    let pairs = contenders[1].blocks.iter().zip(&contenders[0].blocks);
    let mut ratios: Vec<f64> = pairs.map(|(ours, floor)| ours / floor).collect();
    let ratio = median(&mut ratios);
    println!(
        "  → ratio of pairs {ratio:.3}, promised ≤ {promise:.3}{}",
        if ratio <= promise { "" } else { "  ← MISSED" }
    );
}
