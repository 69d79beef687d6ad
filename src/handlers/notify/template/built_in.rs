//! Templates that are there without any file: plain text, no value of the event anywhere but in the text itself.

/// A type's name, its subject, a blank line, its text. Each ends in a way to the next: what an event lacks is left out.
pub(super) const TEMPLATES: [(&str, &str); 10] = [
    ("default", "Subject: {{ data.title or type }}\n\n{{ type }}{% if data.title %}: {{ data.title }}{% endif %}\n{{ time | local }}\n"),
    (
        "digest",
        "Subject: {{ count }} notifications\n\n\
         {% for item in items %}* {{ item.subject }} ({{ item.time | local }})\n{% endfor %}\
         {% if more %}And {{ more }} more.\n{% endif %}",
    ),
    (
        "task.created",
        "Subject: New task: {{ data.title }}\n\n\
         \"{{ data.title }}\" is on your list.\n\
         {% if data.due_date %}Due: {{ data.due_date | local }}\n{% endif %}\
         {% if data.priority %}Priority: {{ data.priority }}\n{% endif %}\
         {% if data.description %}\n{{ data.description }}\n{% endif %}",
    ),
    (
        "task.updated",
        "Subject: Task changed{% if data.title %}: {{ data.title }}{% endif %}\n\n\
         {% if data.title %}\"{{ data.title }}\"{% else %}A task of yours{% endif %} was changed.\n\
         {% if data.due_date %}Due: {{ data.due_date | local }}\n{% endif %}",
    ),
    (
        "task.completed",
        "Subject: Done{% if data.title %}: {{ data.title }}{% endif %}\n\n\
         {% if data.title %}\"{{ data.title }}\"{% else %}A task of yours{% endif %} was completed: {{ data.completed_at | local }}.\n",
    ),
    (
        "task.deleted",
        "Subject: Task deleted{% if data.title %}: {{ data.title }}{% endif %}\n\n\
         {% if data.title %}\"{{ data.title }}\"{% else %}A task of yours{% endif %} was deleted: {{ data.deleted_at | local }}.\n",
    ),
    (
        "reminder.due",
        "Subject: {% if data.reminder_type == 'overdue' %}Overdue{% else %}Reminder{% endif %}{% if data.title %}: {{ data.title }}{% endif %}\n\n\
         {% if data.title %}\"{{ data.title }}\"{% else %}A task of yours{% endif %} \
         {% if data.reminder_type == 'overdue' %}is overdue{% else %}is due{% endif %}\
         {% if data.due_date %}: {{ data.due_date | local }}{% endif %}.\n",
    ),
    (
        "security.alert",
        "Subject: Security alert\n\n\
         We noticed something unusual on your account ({{ data.rule }}, severity {{ data.severity }}, {{ time | local }}).\n\
         If this was you, nothing is to be done. If not, change your password.\n",
    ),
    (
        "user.logged_in",
        "Subject: New sign-in\n\nYou signed in by {{ data.login_method }}: {{ time | local }}.\nIf this was not you, change your password.\n",
    ),
    (
        "points.awarded",
        "Subject: {{ data.points }} points\n\n\
         You were awarded {{ data.points }} points: {{ data.reason }}.{% if data.total %} You have {{ data.total }} now.{% endif %}\n",
    ),
];
