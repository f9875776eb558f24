"""The look of a page: one column, dark on white, and whole figures on paper."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #26323a; font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-bottom: .25rem; border-bottom: 2px solid #dde2e5; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
p { margin: .4rem 0 .8rem; max-width: 48rem; overflow-wrap: anywhere; }
.muted, figcaption { color: #4c5960; font-size: .92rem; }
ul.figures { display: flex; flex-wrap: wrap; gap: .8rem; list-style: none; margin: 1.2rem 0; padding: 0; }
ul.figures li { flex: 1 1 9rem; padding: .6rem .9rem; background: #f2f5f6; border-radius: 6px; }
ul.figures strong { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
figure { margin: 1.2rem 0 1.6rem; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; border: 1px solid #dde2e5; }
figcaption { margin-top: .4rem; max-width: 60rem; }
.wide { overflow-x: auto; margin: 1rem 0 1.4rem; break-inside: avoid; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #4c5960; font-size: .92rem; padding-bottom: .4rem; }
th, td { padding: .28rem .9rem .28rem 0; border-bottom: 1px solid #e6eaec; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
th:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 9rem; max-width: 26rem; }
thead th { border-bottom: 2px solid #b9c1c6; vertical-align: bottom; }
tfoot th, tfoot td { border-top: 2px solid #b9c1c6; border-bottom: 0; font-weight: 600; }
table.words th, table.words td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tbody th .class { font-weight: 400; }
.class i { display: inline-block; width: .85rem; height: .85rem; margin-right: .5rem; vertical-align: -.08rem;
  border: 1px solid #0003; border-radius: 2px; }
.bar { display: inline-block; width: 5rem; height: .55rem; margin-right: .6rem; background: #e9eef1; vertical-align: .08rem; }
.bar span { display: block; height: 100%; background: #2f6db3; }
.amount { display: inline-block; min-width: 3.6rem; }
dl { margin: .8rem 0 1.2rem; max-width: 48rem; }
dl div { display: grid; grid-template-columns: 12rem 1fr; gap: 1rem; padding: .2rem 0; border-bottom: 1px solid #eef1f2; }
dt { color: #4c5960; } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: #f2f5f6; padding: .8rem 1rem; border-radius: 6px; font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
@media print {
  @page { margin: 14mm; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  .bar, .class i, ul.figures li, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr { break-inside: avoid; }
}
"""
