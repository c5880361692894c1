// @ts-check
/** Texts to begin with: long enough for this device to have something to read. */

const MODULE_PAGE = `:mod:\`basket\` --- Collect values and count them
================================================

.. module:: basket
   :synopsis: Collect values and count them.

This module provides a small container for values that come one after the other.
A basket remembers how often each value was put in, and when it was put in last.
It is useful for programs that read a stream of lines, such as a log file, and
want to know at the end which of them came most often.

A basket is similar to a dictionary whose keys are the values and whose values
are the counts.  It differs from a dictionary in the following ways:

* A value that was never put in has the count zero; looking it up does not raise
  :exc:\`KeyError\`.

* The values must be hashable.  Putting in a value that is not hashable raises
  :exc:\`TypeError\`, and the basket is left as it was.

* Iterating over a basket returns the values in the order in which they were
  first put in.

The following example reads a file line by line and prints the three lines that
came most often::

   import basket

   lines = basket.Basket()
   with open('access.log') as file:
       for line in file:
           lines.put(line.rstrip())

   for line, count in lines.most_common(3):
       print(count, line)

The module defines the following class and functions:

.. class:: Basket(iterable=(), *, limit=None)

   Return a new basket that holds the values of *iterable*.  If *limit* is given,
   it must be a positive integer; when more than *limit* different values are in
   the basket, the one that was put in the longest time ago is removed.

   .. method:: put(value, count=1)

      Put *value* into the basket *count* times.  If *count* is negative, a
      :exc:\`ValueError\` is raised.

   .. method:: count(value)

      Return how often *value* was put in.  If it never was, return zero.

   .. method:: most_common(n=None)

      Return a list of the *n* values that came most often, and their counts.  If
      *n* is omitted or \`\`None\`\`, all values are returned.  Values with equal
      counts are ordered by when they were first put in.

   .. method:: remove(value)

`;

const MODULE_CODE = `"""Read and write configuration files.

A file consists of sections, each led by a [section] header and followed by
"name = value" entries. Lines that begin with '#' are comments.
"""

import os
import re


class Error(Exception):
    """Base class for the exceptions of this module."""


class NoSectionError(Error):
    """Raised when a section is not found."""

    def __init__(self, section):
        super().__init__('No section: %r' % section)
        self.section = section


class ConfigFile:
    """A configuration file in memory.

    The argument is the name of a file, or None for an empty configuration.
    """

    _header = re.compile(r'\\[(?P<name>[^]]+)\\]')
    _entry = re.compile(r'(?P<name>[^=\\s]+)\\s*=\\s*(?P<value>.*)')

    def __init__(self, filename=None):
        self._sections = {}
        if filename is not None:
            self.read(filename)

    def sections(self):
        """Return a list of section names."""
        return list(self._sections)

    def add_section(self, section):
        """Create a new section. Raise ValueError if it already exists."""
        if section in self._sections:
            raise ValueError('Section %r already exists' % section)
        self._sections[section] = {}

    def read(self, filename):
`;

/** For a model that goes on with a text. */
export const TEXT_EXAMPLES = [
  { title: "Go on with a page of documentation", prompt: MODULE_PAGE },
  { title: "Go on with a Python module", prompt: MODULE_CODE },
];

const LETTER = `Dear neighbours,

the yard behind our three houses has been a parking place for bicycles that nobody rides, two broken benches and a
large puddle for as long as I can remember. Last week the owner told me that the wall towards the street will be
taken down in spring, because it leans. That is a chance. Once the wall is gone, the yard will be open to the street
and the evening sun will reach the ground for the first time.

I would like to propose that we use the weeks before that to clear it. Whoever owns one of the bicycles, please put a
ribbon on it by the end of the month; those without a ribbon go to the workshop in Mill Lane, which repairs them and
gives them away. The benches can be mended, I have asked a carpenter. For the puddle we need gravel, about two cubic
metres, and three people with a free Saturday. The owner pays for the gravel if we do the work.

After that I hope for a table, some herbs, and perhaps an apple tree. Who can help, and when? And who thinks that the
yard should stay as it is? Please write your name and a word on the list by the letter boxes, for or against.`;

/** For a model that answers messages. */
export const CHAT_EXAMPLES = [
  { title: "Sum a letter up", prompt: `Sum this letter up in three points, then say what the writer wants:\n\n${LETTER}` },
  { title: "Why is the sky blue?", prompt: "Why is the sky blue, and why is it red in the evening? Explain it to a child." },
  { title: "A table of planets", prompt: "Make a table of the planets with their distance from the sun and their moons." },
];
