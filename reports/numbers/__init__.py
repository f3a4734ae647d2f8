"""What is computed: intervals, tests, tables; knows no files and no pages."""
