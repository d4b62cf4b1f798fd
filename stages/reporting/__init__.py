"""What turns measurements into a report: results read from disk, figures and templates."""
