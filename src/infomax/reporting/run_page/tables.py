"""Section with the tables of results: our own, paired, and those of the papers with a line for each encoder of ours."""

from dataclasses import replace

from infomax.reporting.pages.blocks import Paragraph, TableBlock
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, public
from infomax.reporting.tables import Table


def section(content: Content) -> Section:
    """Returns the section, which says how results are made if there are none."""
    report = content.report
    if report is None or not report.tables:
        where = content.runs[0].words if content.runs else "RUN"
        text = (
            f"There are no results yet. infomax evaluate knn {where} makes some, and the same command shows them here."
        )
        return Section("Results, beside the papers'", text)
    blocks: list[Block] = [TableBlock(public_table(table)) for table in report.results]
    blocks += [Paragraph(public(line)) for line in report.origins]
    blocks += [TableBlock(public_table(table)) for table in report.published]
    text = "Our results, and each published table that has a column for one of them, with our lines below the paper's."
    return Section("Results, beside the papers'", text, tuple(blocks))


def public_table(table: Table) -> Table:
    """Returns a table without folders of the machine."""
    rows = tuple(tuple(replace(cell, text=public(cell.text)) for cell in row) for row in table.rows)
    columns, notes = (tuple(map(public, texts)) for texts in (table.columns, table.notes))
    return Table("\n".join(map(public, table.title.split("\n"))), columns, rows, notes)
