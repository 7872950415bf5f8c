"""What `lowbit.compare` found: `Report`, its table for terminals, JSON and one offline HTML file."""

from lowbit.report.report import LayerReport, Report, Threshold

__all__ = ["LayerReport", "Report", "Threshold"]
