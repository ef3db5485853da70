"""Exercises of the course as assignments: student copies without solutions, in nbgrader's format, and their grades."""

from specviz.assignments.copies import Assignment, write_assignment
from specviz.assignments.course import Exercise, exercises, find_notebook
from specviz.assignments.grade import Grade, grade

__all__ = ["Assignment", "Exercise", "Grade", "exercises", "find_notebook", "grade", "write_assignment"]
