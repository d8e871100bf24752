//! Quantities in the form in which the API server stores them.
//!
//! The API server rewrites `1000m` to `1`. What we apply must already read that way, or it would look
//! like drift for ever. Rules: `k8s.io/apimachinery/pkg/api/resource`, canonical form.

use std::cmp::Ordering;

/// A quantity that Kubernetes would not take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a quantity such as 250m, 1 or 512Mi")]
pub struct InvalidQuantity(String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

/// Billionths: the finest unit of a quantity.
const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, u32); 10] =
    [("E", 27), ("P", 24), ("T", 21), ("G", 18), ("M", 15), ("k", 12), ("", 9), ("m", 6), ("u", 3), ("n", 0)];
const BINARY: [(&str, u32); 6] = [("Ei", 6), ("Pi", 5), ("Ti", 4), ("Gi", 3), ("Mi", 2), ("Ki", 1)];

/// The same amount in canonical form: no fraction, and the largest suffix that fits.
pub fn canonical_quantity(text: &str) -> Result<String, InvalidQuantity> {
    let (nanos, format) = parse(text).ok_or_else(|| InvalidQuantity(text.chars().take(40).collect()))?;
    Ok(render(nanos, format))
}

/// Compares two amounts.
pub fn compare_quantities(a: &str, b: &str) -> Result<Ordering, InvalidQuantity> {
    let value =
        |t: &str| parse(t).map(|(n, _)| n).ok_or_else(|| InvalidQuantity(t.chars().take(40).collect()));
    Ok(value(a)?.cmp(&value(b)?))
}

/// The amount as a plain number; exact to a billionth.
pub fn quantity_value(text: &str) -> Result<f64, InvalidQuantity> {
    let (nanos, _) = parse(text).ok_or_else(|| InvalidQuantity(text.chars().take(40).collect()))?;
    Ok(nanos as f64 / NANO as f64)
}

/// Amount in billionths, and how it was written. `None` for what is no quantity or does not fit.
fn parse(text: &str) -> Option<(i128, Format)> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || whole.len() + fraction.len() > 30
    {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let scale = u32::try_from(fraction.len()).ok()?;
    if let Some((_, power)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        let factor = 1024_i128.checked_pow(*power)?.checked_mul(NANO)?;
        return Some((div_up(digits.checked_mul(factor)?, 10_i128.checked_pow(scale)?), Format::Binary));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        let factor = 10_i128.checked_pow(*power)?;
        return Some((div_up(digits.checked_mul(factor)?, 10_i128.checked_pow(scale)?), Format::Decimal));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = exponent.checked_add(9)?.checked_sub(i32::try_from(scale).ok()?)?;
    let nanos = match u32::try_from(power) {
        Ok(up) => digits.checked_mul(10_i128.checked_pow(up)?)?,
        Err(_) => div_up(digits, 10_i128.checked_pow(power.unsigned_abs())?),
    };
    Some((nanos, Format::Exponent))
}

/// Finer than a billionth is rounded up, as Kubernetes does.
fn div_up(a: i128, b: i128) -> i128 {
    (a + b - 1) / b
}

fn render(nanos: i128, format: Format) -> String {
    if nanos == 0 {
        return "0".into();
    }
    // Below 1024 and for fractions Kubernetes writes binary quantities as decimal ones.
    if format == Format::Binary && nanos % NANO == 0 && nanos >= 1024 * NANO {
        let units = nanos / NANO;
        let fits = |(_, power): &&(&str, u32)| units % 1024_i128.pow(*power) == 0;
        return match BINARY.iter().find(fits) {
            Some((suffix, power)) => format!("{}{suffix}", units / 1024_i128.pow(*power)),
            None => units.to_string(),
        };
    }
    let fits = |(_, power): &&(&str, u32)| nanos % 10_i128.pow(*power) == 0;
    let (suffix, power) = DECIMAL.iter().find(fits).unwrap_or(&("n", 0));
    let amount = nanos / 10_i128.pow(*power);
    match (format, *power) {
        (Format::Exponent, 9) => amount.to_string(),
        (Format::Exponent, power) => format!("{amount}e{}", power as i32 - 9),
        _ => format!("{amount}{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_the_api_server_writes_them() {
        for (written, stored) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("250m", "250m"),
            ("2", "2"),
            ("1000", "1k"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Mi", "1000Mi"),
            ("0.5Ki", "512"),
            ("100M", "100M"),
            ("1e3", "1e3"),
            ("12e2", "1200"),
            ("0.0000000001", "1n"),
            ("0", "0"),
            ("0Mi", "0"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            assert_eq!(canonical_quantity(written).as_deref(), Ok(stored), "{written}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for bad in
            ["", ".", "m", "1q", "1.2.3", "-1", "1 Gi", "1ei", "1e999", "99999999999999999999999999999999999"]
        {
            assert!(canonical_quantity(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn canonical_is_a_fixed_point_of_the_same_value(n in 0_u64..1_000_000, suffix in "(|m|k|M|G|Ki|Mi|Gi|e3|e-3)") {
            let text = format!("{n}{suffix}");
            let once = canonical_quantity(&text).expect("valid");
            prop_assert_eq!(canonical_quantity(&once).expect("valid"), once.clone());
            prop_assert_eq!(compare_quantities(&text, &once), Ok(Ordering::Equal));
        }

        #[test]
        fn garbage_never_panics(text in ".{0,40}") {
            let _ = canonical_quantity(&text);
        }
    }
}
