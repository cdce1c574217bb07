//! Plots: horizontal bars with the median, and a line from the lowest to the highest round.

use std::fmt::Write as _;

use crate::report::Spread;

/// One measure of everybody.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The measure, its unit, and which way is better.
    pub title: String,
    /// Decimals of the labels.
    pub decimals: usize,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Whose it is.
    pub label: String,
    /// Its length, and the line over it.
    pub value: Spread,
    /// drover's have another colour.
    pub is_ours: bool,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 300.0;
const VALUES: f64 = 150.0;
const ROW: f64 = 24.0;
const HEAD: f64 = 40.0;
const BAR: f64 = 14.0;
const OURS: &str = "#1f6feb";
const OTHERS: &str = "#9aa4b2";

/// The panels, one below the other, on white, so that it can be read on any page.
pub fn svg(panels: &[Panel]) -> String {
    let height: f64 = panels.iter().map(|panel| HEAD + ROW * panel.bars.len() as f64).sum::<f64>() + 12.0;
    let mut text = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
"##
    );
    let mut top = 0.0;
    for panel in panels {
        panel_into(&mut text, panel, top);
        top += HEAD + ROW * panel.bars.len() as f64;
    }
    text.push_str("</svg>\n");
    text
}

fn panel_into(text: &mut String, panel: &Panel, top: f64) {
    let title_at = top + 25.0;
    let _ = writeln!(text, r##"<text x="12" y="{title_at}" font-weight="bold" fill="#1f2328">{}</text>"##, escaped(&panel.title));
    let most = panel.bars.iter().map(|bar| bar.value.highest).fold(0.0, f64::max);
    let scale = if most > 0.0 { (WIDTH - LABELS - VALUES) / most } else { 0.0 };
    for (number, bar) in panel.bars.iter().enumerate() {
        let middle = top + HEAD + ROW * (number as f64 + 0.5);
        let (bar_top, text_at) = (middle - BAR / 2.0, middle + 4.5);
        let colour = if bar.is_ours { OURS } else { OTHERS };
        let label_at = LABELS - 10.0;
        let _ = writeln!(text, r##"<text x="{label_at}" y="{text_at}" text-anchor="end" fill="#1f2328">{}</text>"##, escaped(&bar.label));
        let (length, from, to) = (bar.value.median * scale, LABELS + bar.value.lowest * scale, LABELS + bar.value.highest * scale);
        let _ = writeln!(text, r#"<rect x="{LABELS}" y="{bar_top}" width="{length:.1}" height="{BAR}" fill="{colour}"/>"#);
        let _ = writeln!(text, r##"<line x1="{from:.1}" y1="{middle}" x2="{to:.1}" y2="{middle}" stroke="#1f2328" stroke-width="1.5"/>"##);
        let (value_at, decimals) = (to.max(LABELS + length) + 8.0, panel.decimals);
        let _ = writeln!(text, r##"<text x="{value_at:.1}" y="{text_at}" fill="#1f2328">{:.decimals$}</text>"##, bar.value.median);
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
