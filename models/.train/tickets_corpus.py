"""Support tickets for training a text classifier: sentences written for this project, with blanks to fill in.

Always: own text, no customer's; held-out templates share no sentence with the training ones.
Licence: the project's (Apache-2.0).
"""

import random

BLANKS = {
    "amount": ["9.99", "12", "19.90", "45", "79", "120", "249.50"],
    "color": ["black", "blue", "red", "green", "white"],
    "days": ["two", "three", "four", "five", "ten"],
    "device": ["laptop", "phone", "tablet", "desktop", "work computer"],
    "document": ["the report", "a photo", "my calendar", "the spreadsheet", "a large file"],
    "item": ["headphones", "keyboard", "backpack", "lamp", "coffee maker", "jacket"],
    "month": ["January", "March", "May", "August", "October"],
    "opening": ["", "", "", "Hello, ", "Hi team, ", "Hi, ", "Good morning, ", "Dear support, "],
    "plan": ["basic", "family", "business", "yearly", "monthly"],
    "place": ["Lisbon", "Toronto", "Osaka", "Leeds", "Nairobi", "Austin"],
    "closing": ["", "", "", " Thanks.", " Thank you.", " Please help.", " Kind regards."],
}

TRAINING = {
    "billing": [
        "I was charged {amount} twice for the {plan} plan in {month}.",
        "My invoice for {month} shows the wrong amount.",
        "Please refund the {amount} you took from my credit card.",
        "Why did the price of the {plan} subscription go up?",
        "The payment failed but the money left my bank account.",
        "I cancelled my {plan} subscription and was still billed {amount}.",
        "Can I pay by bank transfer instead of credit card?",
        "I need a receipt with our tax number for {month}.",
        "There is a fee of {amount} on my statement that I do not recognise.",
        "The discount code was not applied to my bill.",
        "How do I change the card used for the {plan} plan?",
        "When will I receive the refund for {month}?",
        "I would like to move from the {plan} plan to a cheaper one.",
        "You took payment after my free trial was cancelled.",
        "The total on the invoice does not match what I agreed to pay.",
        "Please send a copy of the {month} invoice to our accounting team.",
    ],
    "bug": [
        "The app crashes every time I open {document}.",
        "When I click save nothing happens on my {device}.",
        "The page stays blank after the last update.",
        "Exporting {document} gives error code 500.",
        "The search box returns no results, whatever I type.",
        "Since the update the {device} app freezes on start.",
        "Uploading {document} stops at half and shows an error.",
        "The dark theme makes the buttons invisible.",
        "Notifications appear twice on my {device}.",
        "Sorting the table by date gives the wrong order.",
        "The app uses all the memory on my {device} and hangs.",
        "Copy and paste does not work in the editor.",
        "The sync between my {device} and the website is broken.",
        "The screen flickers when I scroll through {document}.",
        "An unexpected error message pops up when I print.",
        "The download button does nothing in the new version.",
    ],
    "login": [
        "I forgot my password and the reset email never arrives.",
        "I cannot log in to my account on my {device}.",
        "My account is locked after too many attempts.",
        "The verification code is rejected every time.",
        "It says my user name or password is incorrect.",
        "I lost my phone and cannot pass the two factor check.",
        "How do I change the email address I sign in with?",
        "The reset link has expired, please send a new one.",
        "Single sign on with our company account stopped working.",
        "I get logged out of my account every few minutes.",
        "Please unlock my account, I am sure the password is right.",
        "I never received the code to confirm my sign in.",
        "Someone else signed in to my account from {place}.",
        "My new password is not accepted on my {device}.",
        "I want to turn on two factor authentication for my account.",
        "The sign in page says that my user does not exist.",
    ],
    "praise": [
        "I love the new version, great work!",
        "Your support team was wonderful, thank you so much.",
        "The {item} is excellent, I recommend it to all my friends.",
        "Just wanted to say that the app is fantastic.",
        "Best service I have ever used, keep it up!",
        "Thanks for the quick and friendly help in {month}.",
        "I am very happy with my {item}.",
        "What a beautiful design, I enjoy using it every day.",
        "The new editor is amazing and saves me hours.",
        "Five stars, everything is perfect.",
        "You made my day, such kind people!",
        "I am impressed by how easy and fast it is.",
        "My family loves the {item}, it is really good.",
        "Really pleased with the {plan} plan, good value.",
        "Great job on the update, it is so much faster now.",
        "Thank you for solving my problem so quickly, awesome team.",
    ],
    "shipping": [
        "My order has not arrived after {days} days.",
        "Where is my package with the {item}?",
        "The tracking number does not show any movement.",
        "The {item} was delivered to the wrong address.",
        "Can you ship the {item} to {place}?",
        "I received a {color} {item} instead of the one I ordered.",
        "The box was damaged when the courier delivered it.",
        "How long does delivery to {place} take?",
        "Please change the delivery address of my order to {place}.",
        "The courier says the parcel was delivered but I have nothing.",
        "I want to return the {item}, how do I send it back?",
        "One {item} is missing from my order.",
        "Is express shipping to {place} possible?",
        "The tracking page says that the parcel is still in the warehouse.",
        "My parcel has been stuck in customs for {days} days.",
        "The delivery of my {item} was promised for {month}.",
    ],
}

HELD_OUT = {
    "billing": [
        "I see two charges of {amount} on my credit card for {month}.",
        "Could you give me my money back for the {plan} subscription?",
        "The invoice lists {amount} but I only agreed to pay half.",
        "Please stop billing me, I ended the {plan} plan in {month}.",
        "Which payment methods do you accept?",
        "I was billed for a trial that should be free.",
    ],
    "bug": [
        "Opening {document} makes the program crash.",
        "After the update I only see a blank screen.",
        "The save button is broken on my {device}.",
        "I get an error when I try to print {document}.",
        "The website hangs as soon as I scroll.",
        "Dates are shown in the wrong order in the table.",
    ],
    "login": [
        "My password does not work any more on my {device}.",
        "I never got the reset link by email.",
        "Too many attempts, now I am locked out.",
        "The code for two factor sign in does not arrive.",
        "I can not sign in since I changed my email address.",
        "Please help me get back into my account.",
    ],
    "praise": [
        "Thank you, the team was friendly and fast.",
        "I really enjoy the {item}, it is perfect.",
        "Fantastic update, I love it!",
        "Great support, I will recommend you to my family.",
        "Such an easy and beautiful app.",
        "I am happy with everything, keep going!",
    ],
    "shipping": [
        "The parcel with my {item} never came.",
        "The courier left the box at the wrong house.",
        "I ordered a {color} {item} and got another one.",
        "Do you deliver to {place}?",
        "The tracking has not changed for {days} days.",
        "I would like to send the {item} back.",
    ],
}


def tickets(templates, per_template, seed):
    """Texts and labels: each template filled in `per_template` times at most, repeated sentences left out."""
    choose = random.Random(seed)
    texts, labels, seen = [], [], set()
    for label in sorted(templates):
        for template in templates[label]:
            for _ in range(per_template):
                filled = {blank: choose.choice(words) for blank, words in BLANKS.items()}
                text = filled["opening"] + template.format(**filled) + filled["closing"]
                if text not in seen:
                    seen.add(text)
                    texts.append(text)
                    labels.append(label)
    return texts, labels
