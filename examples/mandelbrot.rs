//! A picture of the Mandelbrot set, computed by several processes in one shared array, and written as a PNG.
//!
//! ```text
//! cargo run --release --example mandelbrot -- mandelbrot.png
//! cargo run --release --example mandelbrot -- mandelbrot.png 1200 800 4
//! ```
//!
//! The numbers are width, height and how many processes. Each takes the next row that nobody has, computes it for itself, and holds the lock of the array only to
//! copy the row in. It prints how many rows each has computed:
//!
//! ```text
//! 480x320 by 2 processes, 158 + 162 rows
//! ```
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#sharing-state-between-processes>

use std::fs::File;
use std::io::BufWriter;

use mproc::{Array, Failure, Value};

/// After so many steps a point counts as one of the set.
const STEPS: u32 = 200;

/// How many steps it takes from 0 by z² + c until z is out of reach, smoothly from step to step; `None` if it stays.
fn escapes(real: f64, imaginary: f64) -> Option<f64> {
    let (mut a, mut b) = (0.0, 0.0);
    for step in 0..STEPS {
        let (aa, bb) = (a * a, b * b);
        // Farther than the radius 2 of the definition, for the sake of the smoothness.
        if aa + bb > 256.0 {
            return Some(f64::from(step) + 1.0 - f64::log2(f64::ln(aa + bb) / 2.0));
        }
        (a, b) = (aa - bb + real, 2.0 * a * b + imaginary);
    }
    None
}

/// From blue over white to brown, and black inside.
fn colour(escapes: Option<f64>) -> [u8; 3] {
    let Some(steps) = escapes else {
        return [0, 0, 0];
    };
    [0.0, 0.6, 1.2].map(|phase| {
        let wave = (0.35 * steps.max(0.0).sqrt() * 3.0 + 3.6 + phase).cos();
        (127.5 - 127.5 * wave) as u8
    })
}

#[mproc::entry]
fn paint(picture: &Array<u8>, next: &Value<u32>, width: u32, height: u32) -> Result<u32, Failure> {
    let mut rows = 0;
    loop {
        let mut taken = next.lock().map_err(mproc::Error::from)?;
        let y = *taken;
        if y == height {
            return Ok(rows);
        }
        *taken += 1;
        drop(taken);
        let scale = 3.5 / f64::from(width);
        let imaginary = (f64::from(height) / 2.0 - f64::from(y)) * scale;
        let row: Vec<u8> = (0..width)
            .flat_map(|x| colour(escapes(f64::from(x) * scale - 2.6, imaginary)))
            .collect();
        let place = y as usize * row.len();
        let mut picture = picture.lock().map_err(mproc::Error::from)?;
        picture[place..place + row.len()].copy_from_slice(&row);
        rows += 1;
    }
}

fn write(path: &str, width: u32, height: u32, pixels: &[u8]) -> Result<(), Failure> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    Ok(writer.finish()?)
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let path = arguments.first().map_or("mandelbrot.png", String::as_str);
        let number = |index: usize, otherwise: u32| {
            arguments.get(index).map_or(Ok(otherwise), |text| text.parse::<u32>())
        };
        let (width, height) = (number(1, 480)?.max(1), number(2, 320)?.max(1));
        let processes = number(3, mproc::cpu_count() as u32)?.max(1);

        let picture = Array::<u8>::new(3 * width as usize * height as usize)?;
        let next = Value::new(0)?;
        let painters = (0..processes)
            .map(|_| paint::spawn(&picture, &next, width, height))
            .collect::<mproc::Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        for painter in painters {
            rows.push(painter.join()??.to_string());
        }
        write(path, width, height, &picture.lock().map_err(mproc::Error::from)?)?;
        println!("{width}x{height} by {processes} processes, {} rows", rows.join(" + "));
        Ok(())
    }
}
