"""A report as one HTML file: tables, plots and styles inline, nothing fetched."""

from __future__ import annotations

from importlib.resources import files

from lowbit.report import text
from lowbit.report.report import Report


def render(report: Report) -> str:
    """The page.

    Raises:
        ImportError: matplotlib or jinja2 is missing.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f'the HTML report needs {error.name}: pip install "lowbit[report]"') from None
    from lowbit.report import plots

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string((files("lowbit.report") / "page.html.j2").read_text(encoding="utf-8"))
    timed = [layer for layer in report.layers if layer.ms is not None]
    judged = [layer for layer in report.layers if layer.sqnr_weight is not None or layer.sqnr is not None]
    return page.render(
        report=report,
        summary=text.summary_rows(report),
        header=text.LAYER_HEADER,
        rows=list(zip(report.layers, text.layer_rows(report), strict=True)),
        energy_basis=text.ENERGY_BASIS,
        size_plot=plots.sizes(report.size_steps) if report.size_steps else "",
        sqnr_plot=plots.sqnr(judged) if judged else "",
        time_plot=plots.times(timed) if timed else "",
        threshold_plots=[plots.threshold(t) for t in report.thresholds],
    )
