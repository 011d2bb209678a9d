"""What is said to a language model. All of it is part of the names of its answers: a changed word asks anew."""

ROLE = "You write search queries for a collection of texts."
TYPES = {
    "question": "Write one question that the passage answers and that general knowledge alone does not.",
    "keywords": "Write the few words that somebody would type into a search box to find the passage, no sentence.",
    "statement": "Write one claim that the passage supports or refutes.",
    "long": "Write one or two sentences in which a person describes their situation and says what they want to know; "
    "the passage has to help them.",
    "abstract": "Write one description of what the passage tells, in general terms, so that it fits every passage of "
    "the same kind. Here name nobody, no place, no date and no number, whatever was said above.",
    "misleading": "Write one description, in general terms, of a passage that is almost like this one: it must sound as "
    "if it fitted, and be wrong in one thing that matters. Here name nobody, no place, no date and no number.",
    "user": "Write one query of the kind that this collection's users write; the passage has to answer it.",
}
WORDS = "Use {fewest} to {most} words."
DIFFICULTY = {
    "plain": "",
    "expert": "Write as an expert of the field would.",
    "novice": "Write as somebody would who is new to the field and does not know its terms.",
}
PERSONA = "The query is one of this person: {persona}. Write it in that person's words, but never mention the person."
LANGUAGE = "Write in {language}."
RULES = (
    "The query must be understood by somebody who has not seen the passage: never say this passage, the text, the "
    "document, the study or the author. Name who or what it is about, and when or where, if that matters. Use other "
    "words than the passage: never copy more than four words in a row. Do not give the answer."
)
ONLY = "Write the query and nothing else, in one line."
STYLE = "Queries of this collection look like these:"
PASSAGE = "Passage:"
TITLE = "Title:"
JSON_ONLY = 'Answer with JSON and nothing else: {"queries": [{"slot": 1, "text": "..."}]}, with one entry for each slot.'
JSON_WANTED = "Queries wanted:"
JSON_SLOT = "Slot {slot}: {wanted}"
DRAFT = (
    "Here are titles of texts in a collection. List {count} short descriptions of different people who would search "
    "it, one a line, at most twelve words each, without numbers."
)

LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian", "fr": "French", "he": "Hebrew",
    "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "zh": "Chinese",
}  # fmt: skip

EXAMPLES: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "After the winter of 1962 the ferry between Lindau and Rorschach was taken out of service, because the ice had "
        "bent its port shaft and the yard asked more for the repair than the ship was worth.",
        {
            "question": "why did the Lindau ferry stop running in the sixties?",
            "keywords": "Rorschach ferry end of service 1962",
            "statement": "Ice damage that cost too much to mend ended the Lake Constance ferry in 1962.",
            "long": "My grandfather worked on the boat from Lindau across the lake until the early sixties. I would "
            "like to know what brought that line to its end.",
            "abstract": "A means of transport that was given up after damage by weather cost too much to mend.",
            "misleading": "A means of transport that was given up because too few people used it.",
        },
    ),
    (
        "Seedlings of pepper that get less than six hours of light stretch and fall over. Set the lamp ten centimetres "
        "above the leaves and raise it every week; a fan on its lowest step makes the stems thicker.",
        {
            "question": "how close should a grow light be to young pepper plants?",
            "keywords": "leggy pepper seedlings lamp height",
            "statement": "Moving air helps young pepper plants to grow sturdier stems.",
            "long": "My chilli plants on the window sill have become tall and thin and lean over. What can I change so "
            "that they grow strong?",
            "abstract": "Advice on how to arrange equipment so that young plants grow sturdy.",
            "misleading": "Advice on how often to water young plants so that they grow sturdy.",
        },
    ),
    (
        "The client keeps the session token in memory only. When the process ends, the refresh call fails with code 41 "
        "and the user has to sign in again, unless persist_session is set to true in the settings file.",
        {
            "question": "what makes users sign in again after a restart?",
            "keywords": "refresh error code 41 persist_session",
            "statement": "By default a login does not survive the end of the client process.",
            "long": "Each time I close our client and open it again it wants my password. Is there a setting that lets "
            "it remember the login?",
            "abstract": "How a program forgets a login when it ends, and the setting that changes this.",
            "misleading": "How a program keeps a login for ever, and the setting that ends it.",
        },
    ),
    (
        "In the trial 212 nurses on night duty drank either coffee or decaffeinated coffee at two in the morning. Errors "
        "in the dosing task fell by a third with caffeine, yet sleep at noon was 48 minutes shorter.",
        {
            "question": "does caffeine lower medication errors of night nurses?",
            "keywords": "coffee night shift dosing errors trial",
            "statement": "Caffeine during a night shift has no influence on how long nurses sleep the next day.",
            "long": "I plan duty rosters in a hospital and wonder whether we should offer coffee at night. Has anybody "
            "measured if it prevents mistakes, and what it does to sleep afterwards?",
            "abstract": "An experiment on how a stimulant changes the errors and the sleep of people who work at night.",
            "misleading": "An experiment on how a stimulant changes the errors of people who drive at night.",
        },
    ),
)
"""Invented passages and a query of each kind."""
CONTEXT_ROLE = "You write tasks with short answers about several texts of a collection, all tasks about the same texts."
CONTEXT_RULES = (
    "A task must be understood by somebody who has not seen the texts: never say this text, the passage, the document, the "
    "study or the author, and give no numbers of texts in it. Name who or what it is about. Use other words than the texts: "
    "never copy more than four words in a row. The answer is as short as can be: a name, a number, a few words."
)
CONTEXT_TASKS = {
    "question": "Write one question that one of the texts answers and that general knowledge alone does not.",
    "several": "Write one question whose answer needs what two or more of the texts say, together.",
    "claim": "Write one claim that the texts support or refute; the answer is true or false.",
    "relation": "Name one thing and what is wanted of it, as in: River Elbe, length. The answer is what a text says of it.",
}
"""What is wanted of a context, by the name of the task."""
CONTEXT_TEXT = "Text {number}:"
CONTEXT_ONLY = (
    'Answer with JSON and nothing else: {"queries": [{"slot": 1, "text": "...", "answer": "...", "texts": [1, 2]}]}, with one '
    'entry for each slot; "texts" are the numbers of those that the answer needs.'
)
