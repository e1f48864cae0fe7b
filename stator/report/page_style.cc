#include "stator/report/page_assets.h"

namespace stator::report {

// Colours: every --c on the panel has a contrast of 3:1 or more, texts 4.5:1, in both schemes. The
// order of --c0 to --c7 keeps neighbours apart for the common kinds of colour blindness; lines
// differ by dash as well where one plot shows two figures.
const std::string_view kPageStyle = R"css(
:root{color-scheme:light;--bg:#f5f6f8;--panel:#fff;--line:#e2e5ea;--faint:#eff1f4;--text:#191e26;
--muted:#5a6472;--good:#0b7a5c;--bad:#c0273f;--warn:#8a5a00;--warn-bg:#fff6e0;--warn-line:#efd9a4;
--c0:#2563c9;--c1:#c2570c;--c2:#0f8a6d;--c3:#8b3fc1;--c4:#c42a4b;--c5:#7a6a00;--c6:#0b86b3;
--c7:#5b6470;--r0:#27408f;--r1:#6a35a8;--r2:#ad2e8e;--r3:#d6455f;--r4:#d9711c}
@media (prefers-color-scheme:dark){:root:not([data-theme=light]){color-scheme:dark;--bg:#0e1115;
--panel:#161a20;--line:#2b313b;--faint:#20252d;--text:#e7eaef;--muted:#9aa4b2;--good:#4fd1a8;
--bad:#ff7f93;--warn:#e8bd62;--warn-bg:#251f12;--warn-line:#54451f;--c0:#6ea8ff;--c1:#ffa45c;
--c2:#4fd1a8;--c3:#c99bff;--c4:#ff7f96;--c5:#d9c54a;--c6:#5ccbf0;--c7:#aab4c0;--r0:#7aa0ff;
--r1:#b18cff;--r2:#ee7fd2;--r3:#ff8d8d;--r4:#ffb869}}
:root[data-theme=dark]{color-scheme:dark;--bg:#0e1115;--panel:#161a20;--line:#2b313b;
--faint:#20252d;--text:#e7eaef;--muted:#9aa4b2;--good:#4fd1a8;--bad:#ff7f93;--warn:#e8bd62;
--warn-bg:#251f12;--warn-line:#54451f;--c0:#6ea8ff;--c1:#ffa45c;--c2:#4fd1a8;--c3:#c99bff;
--c4:#ff7f96;--c5:#d9c54a;--c6:#5ccbf0;--c7:#aab4c0;--r0:#7aa0ff;--r1:#b18cff;--r2:#ee7fd2;
--r3:#ff8d8d;--r4:#ffb869}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;
font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
main{max-width:1440px;margin:0 auto;padding:28px 24px 48px}
header{display:flex;gap:16px;align-items:flex-start;justify-content:space-between;margin-bottom:20px}
h1{font-size:26px;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:17px;margin:36px 0 12px}
h3{font-size:14.5px;margin:0;font-weight:600}
.sub{color:var(--muted);margin:5px 0 0;overflow-wrap:anywhere}
.badge{display:inline-block;border:1px solid var(--warn-line);background:var(--warn-bg);
color:var(--warn);border-radius:99px;padding:0 9px;font-size:12.5px;font-weight:600;
white-space:nowrap}
button{font:inherit;font-size:13px;color:var(--text);background:var(--panel);
border:1px solid var(--line);border-radius:8px;padding:6px 12px;cursor:pointer;white-space:nowrap}
button:hover{border-color:var(--muted)}
.warnings{background:var(--warn-bg);border:1px solid var(--warn-line);border-radius:10px;
padding:10px 16px 10px 34px;margin:0 0 20px}
.warnings li{margin:3px 0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px}
.tile,figure,.panel{background:var(--panel);border:1px solid var(--line);border-radius:10px}
.tile{padding:13px 16px 12px}
.tile b{display:block;font-size:25px;line-height:1.25;font-weight:650;letter-spacing:-.01em}
.tile b small{font-size:14px;font-weight:500;color:var(--muted);letter-spacing:0}
.tile span{display:block;color:var(--muted);font-size:13px}
.tile .name{font-weight:600}.tile .bad{font-style:normal}
.tile .bar{height:4px;border-radius:2px;background:var(--faint);margin:7px 0 5px;overflow:hidden}
.tile .bar i{display:block;height:100%;background:var(--good)}
.bad{color:var(--bad)}.better{color:var(--good)}
.bars{text-align:center;width:26%}svg.ratio{min-width:180px;height:22px}.ratio .curve{stroke-width:4}
.ratio .marks{stroke-width:10}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(400px,100%),1fr));gap:14px;
grid-auto-flow:dense}
figure{margin:0;padding:13px 14px 8px;min-width:0;display:flex;flex-direction:column}
figcaption p{margin:1px 0 0;color:var(--muted);font-size:13px}
.plot{position:relative;margin-top:auto;padding-top:6px}
svg{display:block;width:100%;height:auto;touch-action:pan-y}
svg text{font-size:12px;fill:var(--muted)}
.grid path{stroke:var(--line);stroke-width:1}
.grid .minor{stroke:var(--faint)}
.base{stroke:var(--muted);stroke-width:1;opacity:.6}
.curve{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.dashed{stroke-dasharray:5 4;stroke-width:1.6}
.faint{stroke-width:1.1;opacity:.65}
.dots,.marks{fill:none;stroke:var(--c);stroke-linecap:round}
.dots{stroke-width:4.2;opacity:.5}
.marks{stroke-width:7}
.y{text-anchor:end}.x{text-anchor:middle}
.limit{stroke:var(--bad);stroke-width:1.3;stroke-dasharray:2 3;fill:none}
svg text.limit{stroke:var(--panel);stroke-width:4;stroke-dasharray:none;stroke-linejoin:round;
paint-order:stroke;fill:var(--bad);font-weight:600}
.start{text-anchor:start}.end{text-anchor:end}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 16px;margin:5px 0 0;padding:0;
font-size:13px;color:var(--muted)}
.legend li{display:flex;align-items:center;gap:6px;overflow-wrap:anywhere;min-width:0}
.key{flex:none;display:inline-block;width:18px;height:0;border-top:2.5px solid var(--c)}
.key.dashed{border-top-style:dashed;border-top-width:2px}
.key.faint{border-top-width:1.5px;opacity:.7}
.key.dots{width:9px;height:9px;border:0;border-radius:50%;background:var(--c)}
.swatch{display:inline-block;width:11px;height:11px;border-radius:3px;background:var(--c);
margin-right:8px;vertical-align:-1px}
.runs .swatch{margin:0}
.runs{position:sticky;top:0;z-index:2;background:var(--bg);padding:8px 0 9px;margin:14px 0 0;
border-bottom:1px solid var(--line)}
.panel{overflow-x:auto}.below{margin-top:14px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:7px 11px;text-align:right;border-bottom:1px solid var(--faint);white-space:nowrap}
thead th{color:var(--muted);font-weight:600;font-size:12.5px;border-bottom-color:var(--line);
vertical-align:bottom}
tbody th,th:first-child,td.text{text-align:left}
tbody th{font-weight:500}
td.text{white-space:normal;overflow-wrap:anywhere}
tbody tr:last-child>*{border-bottom:0}
tr.group th{padding-top:14px;color:var(--muted);font-weight:600;font-size:13px}
td.verdict{text-align:left}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:0 28px;
margin:0;padding:8px 16px}
dl div{display:flex;justify-content:space-between;gap:16px;padding:5px 0;
border-bottom:1px solid var(--faint)}
dt{color:var(--muted);flex:none;max-width:50%;overflow-wrap:anywhere}
dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0}
.read{position:absolute;pointer-events:none;background:var(--panel);border:1px solid var(--muted);
border-radius:7px;padding:5px 9px;font-size:12.5px;line-height:1.45;white-space:nowrap;z-index:3;
box-shadow:0 3px 12px rgb(0 0 0/.18)}
.read b{display:block}
.read i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:6px}
.cross{stroke:var(--muted);stroke-width:1;stroke-dasharray:2 2}
.spot{fill:var(--panel);stroke-width:2}
details{margin-top:14px}
summary{cursor:pointer;color:var(--muted);padding:4px 2px}
.note{color:var(--muted);font-size:13.5px;max-width:90ch;margin:10px 0 0}
footer{margin-top:40px;border-top:1px solid var(--line);padding-top:14px;color:var(--muted);
font-size:13.5px}
footer p{max-width:100ch;margin:6px 0}
@media (max-width:860px){.tiles{grid-template-columns:1fr 1fr}}
@media (max-width:640px){main{padding:18px 12px 32px}h1{font-size:22px}
.tiles{gap:8px}.tile{padding:10px 12px}.tile b{font-size:20px}
.tile b small{font-size:12.5px}
figure{padding:11px 8px 4px}figcaption{padding:0 4px}svg text{font-size:13.5px}th,td{padding:7px 10px}
.runs{position:static}}
.broad{display:none}
@media (min-width:880px){.wide{grid-column:span 2}.wide .broad{display:block}.wide .narrow{display:none}}
@media print{:root,:root:not([data-theme=light]),:root[data-theme=dark]{color-scheme:light;
--bg:#fff;--panel:#fff;--line:#d5d9df;--faint:#eceef1;--text:#000;--muted:#4a535f;--good:#0b7a5c;
--bad:#c0273f;--warn:#6d4700;--warn-bg:#fff;--warn-line:#b99b58;--c0:#2563c9;--c1:#c2570c;
--c2:#0f8a6d;--c3:#8b3fc1;--c4:#c42a4b;--c5:#7a6a00;--c6:#0b86b3;--c7:#5b6470;--r0:#27408f;
--r1:#6a35a8;--r2:#ad2e8e;--r3:#d6455f;--r4:#d9711c}
body{font-size:12px;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}button{display:none}.runs{position:static}
.plots{grid-template-columns:1fr 1fr}.tiles{grid-template-columns:repeat(4,1fr)}
figure,.tile,tr{break-inside:avoid}h2{break-after:avoid}.panel{overflow:visible}
th,td{padding:4px 8px}.wide{grid-column:span 2}.wide .broad{display:block}.wide .narrow{display:none}}
)css";

}  // namespace stator::report
